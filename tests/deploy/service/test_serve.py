"""`penstock serve` as a process: 8 clients at once, a clean end, its schema, and what it does not start with."""

from __future__ import annotations

import os
import random
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
from surrogates import exported

from penstock.service import listen
from penstock_client import PenstockError
from penstock_server.surrogate import Surrogate

COMMAND = [sys.executable, "-m", "penstock.main", "serve"]


@contextmanager
def serving(run: Path, **environment: str) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A running `penstock serve`, and its address."""
    process = subprocess.Popen(
        [*COMMAND, str(run), "--port", "0"],
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        found = re.match(r"wave is served at (http://127\.0\.0\.1:\d+); Ctrl-C ends it", line)
        assert found, f"{line}{process.stderr.read() if process.stderr and process.poll() is not None else ''}"
        yield process, found[1]
    finally:
        process.kill()
        process.communicate()


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("run")
    (folder / "logs").mkdir()
    exported(folder)
    return folder


def test_eight_clients_get_right_answers_and_sigterm_ends_it(run: Path) -> None:
    surrogate = Surrogate.load(run)

    def client(seed: int) -> int:
        rng = random.Random(seed)
        with httpx.Client(base_url=url, trust_env=False, timeout=60) as own:
            for _ in range(25):
                point = {"speed": rng.uniform(1, 2), "width": rng.uniform(0.1, 0.3)}
                answer = own.post("/predict", json={"parameters": point, "times": [1.0]})
                assert answer.status_code == 200, answer.text
                want = surrogate.predict(point, [1.0]).fields["U"]
                np.testing.assert_allclose(np.array(answer.json()["fields"]["U"]), want, rtol=1e-5)
        return 25

    with serving(run) as (process, url):
        with ThreadPoolExecutor(8) as pool:
            assert sum(pool.map(client, range(8))) == 200
        metrics = httpx.get(f"{url}/metrics", trust_env=False).text
        assert 'penstock_service_requests_total{code="200",path="/predict"} 200.0' in metrics
        process.send_signal(signal.SIGTERM)
        out, errors = process.communicate(timeout=60)
        assert (process.returncode, out, errors) == (0, "", "")
    assert "Traceback" not in (run / "logs" / "service.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("token", ["", "secret"])
def test_schemathesis_finds_nothing(run: Path, tmp_path: Path, token: str) -> None:
    header = ["--header", f"Authorization: Bearer {token}"] if token else []
    with serving(run, PENSTOCK_SERVICE_TOKEN=token) as (_, url):
        done = subprocess.run(
            [
                *(str(Path(sys.executable).parent / "schemathesis"), "run", f"{url}/openapi.json", *header),
                *("--max-examples", "30", "--seed", "1", "--no-color"),
            ],
            cwd=tmp_path,
            capture_output=True,
            text=True,
            check=False,
        )
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (
            ["--host", "0.0.0.0"],
            "everyone who reaches this address could ask; set the environment variable PENSTOCK_SERVICE",
        ),
        (["--host", "192.0.2.1"], "everyone who reaches this address could ask"),
    ],
)
def test_another_address_needs_a_token(run: Path, arguments: list[str], says: str) -> None:
    done = subprocess.run([*COMMAND, str(run), *arguments], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (1, "", 1)
    assert says in done.stderr


def test_a_port_that_is_taken() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(
            PenstockError, match=f"--host 127.0.0.1 --port {port} cannot be listened on: Address already"
        ):
            listen("127.0.0.1", port)
