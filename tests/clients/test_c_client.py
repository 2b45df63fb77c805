"""libpenstock: the shared vectors, streams to the real server, and what it says when the server is not what it should be."""

from __future__ import annotations

import json
import math
import os
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import zmq

from live_server import live_server, worker
from network import Proxy
from penstock_client import wire
from penstock_client.connect_file import ConnectInfo, read_connect_file
from penstock_client.payloads import Accept, Alive, Assign, Refuse, Welcome
from penstock_client.reasons import Reason
from penstock_client.stream_payloads import Streamed
from penstock_client.wire import Header, Kind
from penstock_server.network import open_keys
from penstock_server.network.auth import AllowList, secure_context
from penstock_server.network.keys import DEFAULT
from penstock_server.telemetry import Metrics
from waiting import PATIENCE, busy

ROOT = Path(__file__).parents[2]
VECTORS: dict[str, Any] = json.loads((ROOT / "tests" / "wire" / "vectors.json").read_text())
U = {"u": {"components": 2}}

# penstock_status
NO_CONNECTION, REFUSED, ABANDONED, SERVER_LOST = 2, 4, 5, 6


# --- building ---------------------------------------------------------------------------------------------------------


def c_bytes(raw: bytes) -> str:
    """A string literal; octal escapes, since a hexadecimal one would swallow the digits after it."""
    return '"' + "".join(f"\\{byte:03o}" for byte in raw) + '"'


def c_text(text: str) -> str:
    return c_bytes(text.encode())


def c_double(value: Any) -> str:
    number = float(value)
    return "NAN" if math.isnan(number) else "INFINITY" if math.isinf(number) else number.hex()


def c_array(kind: str, items: list[str]) -> str:
    """A compound literal; never empty, which C does not allow."""
    return f"({kind}[]){{{', '.join(items) or '0'}}}"


def c_header(h: dict[str, Any]) -> str:
    dtype = wire.Dtype[h["dtype"].upper()].value
    signed = {name: f"INT64_C({h[name]})" for name in ("simulation", "step")}
    unsigned = {name: f"UINT64_C({h[name]})" for name in ("offset", "count")}
    return (
        f"{{.kind = {Kind[h['kind']].value}, .dtype = {dtype}, .incarnation = {h['incarnation']}u, "
        f".attempt = {h['attempt']}u, .simulation = {signed['simulation']}, .step = {signed['step']}, "
        f".field = {h['field']}u, .rank = {h['rank']}u, .offset = {unsigned['offset']}, .count = {unsigned['count']}, "
        f".time = {c_double(h['time'])}}}"
    )


def c_values(kind: str, v: dict[str, Any]) -> str:
    """A pointer to the struct in which clients/c/tests/vectors.c keeps a payload's values."""
    if kind == "HELLO":
        return f"&(hello_values){{(const uint8_t *){c_bytes(bytes.fromhex(v['client']))}, {v['pid']}u, {c_text(v['host'])}}}"
    if kind == "WELCOME":
        texts = {
            name: c_array("char *", [c_text(t) for t in v[name]]) for name in ("rank_endpoints", "parameters", "fields")
        }
        return (
            f"&(pnsk_welcome){{{v['heartbeat_ms']}u, {v['server_timeout_ms']}u, UINT64_C({v['credit_bytes']}), "
            f"{v['coalesce_bytes']}u, {v['coalesce_ms']}u, {int(v['pin_simulations'])}, {len(v['rank_endpoints'])}, "
            f"{len(v['parameters'])}, {len(v['fields'])}, {texts['rank_endpoints']}, {texts['parameters']}, "
            f"{texts['fields']}, {c_text(v['solver'])}}}"
        )
    if kind == "ASSIGN":
        values = c_array("double", [c_double(x) for x in v["parameters"]])
        return f"&(pnsk_assign){{{int(v['validation'])}, {len(v['parameters'])}, {values}}}"
    if kind == "ANNOUNCE":
        fields = [
            f"{{{c_text(f['name'])}, {wire.Dtype[f['dtype'].upper()].value}, {f['components']}u, {len(f['shape'])}u, "
            f"{c_array('uint64_t', [f'UINT64_C({n})' for n in f['shape']])}, {int(f['static'])}}}"
            for f in v["fields"]
        ]
        return f"&(announce_values){{{len(fields)}, {c_array('penstock_field', fields)}}}"
    if kind == "ACCEPT":
        ids = c_array("uint32_t", [f"{i}u" for i in v["ids"]])
        return f"&(pnsk_accept){{{len(v['ids'])}, {ids}, {c_array('bool', [str(int(w)) for w in v['wanted']])}}}"
    if kind == "BEGIN":
        values = c_array("double", [c_double(x) for x in v["parameters"]])
        return f"&(begin_values){{{v['ranks']}u, {len(v['parameters'])}u, {values}}}"
    if kind == "STREAMED":
        return f"&(pnsk_streamed){{{', '.join(f'UINT64_C({v[n]})' for n in ('accepted', 'duplicates', 'refused'))}}}"
    if kind == "FINISH":
        return (
            f"&(finish_values){{{v['outcome']}, {v['ranks']}u, {v['steps']}u, {c_double(v['blocked_seconds'])}, "
            f"{c_text(v['message'])}}}"
        )
    if kind == "ALIVE":
        return f"&(bool){{{int(v['abandon'])}}}"
    assert kind == "REFUSE"
    return f"&(pnsk_refuse){{{v['reason']}u, {c_text(v['text'])}}}"


RECEIVED = {"WELCOME", "ASSIGN", "ACCEPT", "STREAMED", "ALIVE", "REFUSE"}


def vectors_header() -> str:
    """tests/wire/vectors.json as C tables."""

    def raw(text: str) -> str:
        data = bytes.fromhex(text)
        return f"{{(const uint8_t *){c_bytes(data)}, {len(data)}}}"

    lines = ["#include <math.h>", "static const header_vector headers[] = {"]
    lines += [
        f"    {{{c_text(m['name'])}, {c_header(m['header'])}, {raw(m['header_hex'])}}}," for m in VECTORS["messages"]
    ]
    lines += ["};", "static const struct { const char *name; bool version; bytes raw; } invalid_headers[] = {"]
    lines += [
        f"    {{{c_text(i['name'])}, {int(i['error'] == 'version')}, {raw(i['hex'])}}},"
        for i in VECTORS["invalid_headers"]
    ]
    lines += ["};", "static const payload_vector payloads[] = {"]
    for m in VECTORS["messages"]:
        kind = m["header"]["kind"]
        if "payload" in m:
            values = c_values(kind, m["payload"])
            lines.append(f"    {{{c_text(m['name'])}, {Kind[kind].value}, {raw(m['payload_hex'])}, {values}}},")
    for i in VECTORS["invalid_payloads"]:
        if i["kind"] in RECEIVED:
            lines.append(f"    {{{c_text(i['name'])}, {Kind[i['kind']].value}, {raw(i['hex'])}, NULL}},")
    return "\n".join([*lines, "};", ""])


@pytest.fixture(scope="session")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with libpenstock and its test programs, built with the undefined-behaviour and address sanitizers."""
    build = tmp_path_factory.mktemp("libpenstock")
    (build / "vectors.h").write_text(vectors_header())
    flags = "-O1 -g -fsanitize=address,undefined -fno-sanitize-recover=all"
    subprocess.run(
        ["make", "-s", "-C", ROOT / "clients" / "c", f"BUILD={build}", f"VECTORS={build}", f"CFLAGS={flags}", "tests"],
        check=True,
    )
    return build


def test_the_shared_vectors_pass(programs: Path) -> None:
    done = subprocess.run([programs / "vectors"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    headers, payloads = len(VECTORS["messages"]), sum("payload" in m for m in VECTORS["messages"])
    payloads += sum(i["kind"] in RECEIVED for i in VECTORS["invalid_payloads"])
    assert done.stdout.splitlines()[-1] == f"{headers} headers, {payloads} payloads, 0 failures"


def test_it_installs_with_a_pkg_config_file(tmp_path: Path) -> None:
    build, prefix = tmp_path / "build", tmp_path / "usr"
    subprocess.run(
        ["make", "-s", "-C", ROOT / "clients" / "c", f"BUILD={build}", f"PREFIX={prefix}", "install"], check=True
    )
    environment = os.environ | {"PKG_CONFIG_PATH": str(prefix / "lib" / "pkgconfig")}
    flags = subprocess.run(
        ["pkg-config", "--cflags", "--libs", "penstock"], env=environment, capture_output=True, text=True, check=True
    ).stdout.split()
    source = tmp_path / "main.c"
    source.write_text(
        "#include <penstock.h>\n#include <stdio.h>\n"
        'int main(void) { penstock *p; int s = (int)penstock_connect(&p, "nowhere.json", 0, 1);\n'
        "puts(penstock_error(p)); penstock_close(p); return s; }\n"
    )
    subprocess.run(["cc", source, *flags, "-o", tmp_path / "main"], check=True)
    environment["LD_LIBRARY_PATH"] = str(prefix / "lib")
    done = subprocess.run([tmp_path / "main"], env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == NO_CONNECTION
    assert done.stdout.startswith("cannot read nowhere.json (No such file or directory): is the study running")


# --- the real server ----------------------------------------------------------------------------------------------------


def expected_field(a: float, step: int, points: int) -> Any:
    """What clients/c/tests/stream.c sends, as the server keeps it."""
    return (a + step + np.arange(2 * points).reshape(points, 2) / 1024).astype(np.float32)


def test_every_value_arrives_once(programs: Path, tmp_path: Path) -> None:
    steps, points = 12, 30
    with live_server(tmp_path / "run", U, simulations=1, validation_simulations=1) as server, worker(server) as client:
        wanted = []
        for simulation in client.simulations():
            process = server.start([programs / "stream", str(steps), str(points), "static"], simulation)
            lines = process.communicate(timeout=PATIENCE)[0].splitlines()
            assert process.returncode == 0, lines
            a = simulation.parameters["a"]
            assert lines[0] == f"simulation {simulation.id} attempt 1 a={a:.17g}"
            wanted.append(lines[1])
            simulation.exited()
        report = server.report()
    # the mesh is wanted from the first simulation alone
    assert wanted == ["cell_volumes wanted: 1", "cell_volumes wanted: 0"]
    assert report["status"] == "finished"
    assert report["simulations"]["finished"] == 2
    assert report["samples"]["unique"] == report["samples"]["expected"] == steps
    assert report["samples"]["rejected"] == report["samples"]["duplicates_dropped"] == 0
    with h5py.File(tmp_path / "run" / "mesh.h5") as mesh:
        np.testing.assert_array_equal(mesh["cell_volumes"], 1.0 + np.arange(points)[:, None])
    with h5py.File(tmp_path / "run" / "validation_snapshots.h5") as pictures:
        seen = [picture for picture in pictures.values() if isinstance(picture, h5py.Group)]
        assert len(seen) == 3
        for picture in seen:
            field = expected_field(float(picture.attrs["inputs"][0]), int(picture.attrs["step"]), points)
            np.testing.assert_allclose(picture["u/true"], field, rtol=1e-6)


def test_solver_ranks_each_send_their_piece(programs: Path, tmp_path: Path) -> None:
    steps, points = 5, 7
    with live_server(tmp_path / "run", U, validation_simulations=1) as server, worker(server) as client:
        for simulation in client.simulations():
            command: list[str | Path] = [programs / "stream", str(steps), str(points), "ranks=3"]
            ranks = [server.start([*command, f"rank={rank}"], simulation) for rank in range(3)]
            assert [r.communicate(timeout=PATIENCE)[0].splitlines()[-1] for r in ranks] == ["finished"] * 3
            simulation.exited()
        report = server.report()
    assert report["samples"]["unique"] == report["samples"]["expected"] == steps
    with h5py.File(tmp_path / "run" / "validation_snapshots.h5") as pictures:
        picture = next(p for p in pictures.values() if isinstance(p, h5py.Group))
        field = expected_field(float(picture.attrs["inputs"][0]), int(picture.attrs["step"]), points)
        np.testing.assert_allclose(picture["u/true"], field, rtol=1e-6)


@pytest.mark.parametrize("credit", [100, 4000, "1 MiB"])
def test_credit_never_stops_a_stream_for_good(programs: Path, tmp_path: Path, credit: int | str) -> None:
    """Windows smaller than a piece, of a few pieces, and larger than all of them."""
    steps, points = 40, 50
    with live_server(tmp_path / "run", U, credit=credit) as server, worker(server) as client:
        for simulation in client.simulations():
            process = server.start([programs / "stream", str(steps), str(points)], simulation)
            assert process.communicate(timeout=PATIENCE)[0].splitlines()[-1] == "finished"
            simulation.exited()
        report = server.report()
    assert report["samples"]["unique"] == report["samples"]["expected"] == steps
    assert report["clients"]["bytes_received"] == steps * points * 2 * 8


def test_a_refused_piece_is_reported_to_the_solver(programs: Path, tmp_path: Path) -> None:
    with live_server(tmp_path / "run", U) as server, worker(server) as client:
        simulation = next(client.simulations())
        process = server.start([programs / "stream", "20", "4", "nan_at=3", "pause_ms=20"], simulation)
        output = process.communicate(timeout=PATIENCE)[0]
        assert process.returncode == REFUSED
        assert "time step 3 of simulation 0 has nan at element 0" in output
        assert output.rstrip().endswith("(refused: not_finite)")


def test_a_field_that_the_study_does_not_have_is_refused(programs: Path, tmp_path: Path) -> None:
    with live_server(tmp_path / "run", {"w": {}}) as server, worker(server) as client:
        simulation = next(client.simulations())
        process = server.start([programs / "stream", "2", "4"], simulation)
        output = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == REFUSED
    assert "announce: field 'u': the study has w (refused: unknown_field)" in output


def test_a_failure_is_reported_to_the_server(programs: Path, tmp_path: Path) -> None:
    with live_server(tmp_path / "run", U) as server, worker(server) as client:
        simulation = next(client.simulations())
        process = server.start([programs / "stream", "9", "4", "fail_at=2"], simulation)
        assert process.communicate(timeout=PATIENCE)[0].splitlines()[-1] == "failed"
        report = server.report()
    assert report["simulations"]["failed"] == 1
    assert "diverged on purpose" in (tmp_path / "run" / "events.jsonl").read_text()


def test_another_attempt_is_refused(programs: Path, tmp_path: Path) -> None:
    with live_server(tmp_path / "run", U) as server, worker(server) as client:
        simulation = next(client.simulations())
        simulation.attempt += 1
        process = server.start([programs / "stream", "2", "4"], simulation)
        output = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode == REFUSED
    assert "begin: attempt 2 of simulation 0: attempt 1 is the current one (refused: stale_attempt)" in output


def test_a_stopping_study_stops_the_solver(programs: Path, tmp_path: Path) -> None:
    with live_server(tmp_path / "run", U) as server, worker(server) as client:
        simulation = next(client.simulations())
        process = server.start([programs / "stream", "100000", "4", "pause_ms=10"], simulation)
        assert process.stdout is not None
        assert process.stdout.readline().startswith("simulation 0")
        while server.engine.status().received == 0:
            time.sleep(0.01)
        server.engine.stop("the test says so")
        output = process.communicate(timeout=PATIENCE)[0]
    assert process.returncode in (ABANDONED, REFUSED, SERVER_LOST), output
    assert "simulation 0" in output or "study is stopping" in output or "lost the connection" in output


# --- servers that are not what they should be --------------------------------------------------------------------------


def run(programs: Path, *arguments: str, **environment: str) -> tuple[int, str, float]:
    begun = time.monotonic()
    variables = {"PENSTOCK_SIMULATION": "0", "PENSTOCK_ATTEMPT": "1", "PENSTOCK_CONNECT_TIMEOUT": "1"} | environment
    done = subprocess.run(
        [programs / "stream", *(arguments or ("3", "4"))],
        env={k: v for k, v in os.environ.items() if not k.startswith("PENSTOCK_")} | variables,
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )
    assert done.stderr == ""
    return done.returncode, done.stdout.splitlines()[-1], time.monotonic() - begun


def connect_file(path: Path, **changes: Any) -> Path:
    keys = open_keys(path.parent)
    client = keys.workers[DEFAULT]
    info = ConnectInfo("a study", 1, "tcp://127.0.0.1:9", keys.server_public, client.public, client.secret)
    replace(info, **changes).write(path)
    return path


def test_no_server_is_named(programs: Path) -> None:
    code, text, _ = run(programs)
    assert code == NO_CONNECTION
    assert text == "connect: no server given: set PENSTOCK_CONNECT to the connect.json in the study's run directory"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "something that is not a JSON object"),
        ("[]", "something that is not a JSON object"),
        ("{}", 'something that is not "name": value'),
        ('{"study": "s"}', "not all of study, incarnation, control and the three keys"),
        ('{"study": "s", "incarnation": "1"}', "incarnation, which should be an integer"),
        ('{"study": "s", "incarnation": 1.5}', "incarnation, which should be an integer"),
        ('{"study": "s", "incarnation": -1}', "incarnation, which should be an integer"),
        ('{"study": "s", "incarnation": 4294967296}', "incarnation, which should be an integer"),
        ('{"study": ["s"]}', "study, which should be a string"),
        ('{"study": "s", "colour": "red"}', "a name that this version does not know"),
        ('{"study": "s"', "a missing , or }"),
        ('{"study": "s', "a string without an end"),
        ('{"study": "\\x41"}', "an unknown escape in a string"),
        ('{"study": "\\ud800"}', "half a surrogate pair"),
        ('{"study": "' + 300 * "s" + '"}', "a string that is too long"),
        ('{"server_public_key": "' + 41 * "k" + '"}', "a string that is too long"),
    ],
)
def test_a_connect_file_that_is_none(programs: Path, tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "connect.json"
    path.write_text(text)
    code, said, _ = run(programs, PENSTOCK_CONNECT=str(path))
    assert code == NO_CONNECTION
    assert f"{path} is not a connect.json of this version of Penstock: it has {problem};" in said


def test_a_study_name_with_escapes_is_read(programs: Path, tmp_path: Path) -> None:
    path = connect_file(tmp_path / "connect.json", study='"Rohrströmung" \\ 𝜈\n')
    assert "\\ud835" in path.read_text()
    code, said, _ = run(programs, PENSTOCK_CONNECT=str(path))
    assert (code, said.split(" at ")[0]) == (NO_CONNECTION, "connect: no answer from the server")


def test_nobody_listens(programs: Path, tmp_path: Path) -> None:
    path = connect_file(tmp_path / "connect.json")
    code, said, seconds = run(programs, PENSTOCK_CONNECT=str(path))
    assert code == NO_CONNECTION
    assert said == (
        "connect: no answer from the server at tcp://127.0.0.1:9 within 1 s: is the study running, and can this machine "
        "reach that address?"
    )
    assert seconds < 5


def test_somebody_else_listens(programs: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            connection, _ = other.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        path = connect_file(tmp_path / "connect.json", control=f"tcp://127.0.0.1:{other.getsockname()[1]}")
        code, said, _ = run(programs, PENSTOCK_CONNECT=str(path))
        thread.join(10)
    assert code == NO_CONNECTION
    assert said.startswith("connect: no answer from the server")


def test_keys_of_another_study(programs: Path, tmp_path: Path) -> None:
    with live_server(tmp_path / "run", U) as server:
        stranger = open_keys(tmp_path)
        client = stranger.workers[DEFAULT]
        info = read_connect_file(server.connect)
        path = tmp_path / "connect.json"
        replace(info, client_public_key=client.public, client_secret_key=client.secret).write(path)
        code, said, _ = run(programs, PENSTOCK_CONNECT=str(path))
        assert code == NO_CONNECTION
        assert said.endswith(
            "the server rejects the keys in connect.json: it belongs to another study, take the one in this study's run directory"
        )
        replace(info, server_public_key=stranger.server_public).write(path)
        code, said, _ = run(programs, PENSTOCK_CONNECT=str(path))
        assert code == NO_CONNECTION
        assert said.endswith("the encrypted handshake fails: is connect.json the current one?")


def test_an_earlier_incarnation(programs: Path, tmp_path: Path) -> None:
    with live_server(tmp_path / "run", U) as server:
        path = tmp_path / "connect.json"
        info = read_connect_file(server.connect)
        replace(info, incarnation=info.incarnation + 1).write(path)
        code, said, _ = run(programs, PENSTOCK_CONNECT=str(path))
    assert code == REFUSED
    assert said.endswith("read connect.json again (refused: incarnation)")


@pytest.mark.parametrize("name", ["PENSTOCK_SIMULATION", "PENSTOCK_ATTEMPT"])
@pytest.mark.parametrize("value", ["", "one", "-1", "1e3", "99999999999999999999"])
def test_variables_that_are_not_set(programs: Path, tmp_path: Path, name: str, value: str) -> None:
    with live_server(tmp_path / "run", U) as server:
        code, said, _ = run(programs, **{"PENSTOCK_CONNECT": str(server.connect), name: value})
    assert code == 1
    assert said.startswith(f"begin: {name} is {value}: a Penstock worker sets it to a number")


@contextmanager
def scripted(tmp_path: Path, script: dict[Kind, Any], timeout_ms: int = 600) -> Iterator[Path]:
    """A ROUTER that answers as it is told: it injects the faults that the real server does not have.

    script: kind of a request -> function from its header to the frames of the answer, or None for silence.
    """
    keys = open_keys(tmp_path)
    context, authenticator = secure_context(AllowList(keys, Metrics("scripted", "test")))
    router = context.socket(zmq.ROUTER)
    router.setsockopt(zmq.CURVE_SERVER, 1)
    router.setsockopt(zmq.CURVE_SECRETKEY, keys.server_secret.encode())
    router.setsockopt(zmq.LINGER, 0)
    endpoint = f"tcp://127.0.0.1:{router.bind_to_random_port('tcp://127.0.0.1')}"
    welcome = Welcome(100, timeout_ms, 1000, 0, 0, False, (endpoint,), ("a",), ("u",), "")
    answers: dict[Kind, Any] = {
        Kind.HELLO: lambda h: [h._replace(kind=Kind.WELCOME).pack(), welcome.pack()],
        Kind.HEARTBEAT: lambda h: [h._replace(kind=Kind.ALIVE).pack(), Alive(False).pack()],
        Kind.NEXT: lambda h: [h._replace(kind=Kind.ASSIGN).pack(), Assign((2.0,), False).pack()],
        Kind.ANNOUNCE: lambda h: [h._replace(kind=Kind.ACCEPT).pack(), Accept((0,), (True,)).pack()],
        Kind.BEGIN: lambda h: [h._replace(kind=Kind.CREDIT, count=1000).pack()],
    } | script
    over = threading.Event()

    def serve() -> None:
        while not over.is_set():
            if router.poll(20):
                peer, *frames = router.recv_multipart()
                answer = answers.get(wire.unpack(frames[0]).kind)
                reply = answer(wire.unpack(frames[0])) if answer else None
                if reply == "die":
                    break
                if reply is not None:
                    router.send_multipart([peer, *reply])
        router.close()

    thread = threading.Thread(target=serve)
    thread.start()
    path = tmp_path / "connect.json"
    ConnectInfo("s", 1, endpoint, keys.server_public, keys.workers[DEFAULT].public, keys.workers[DEFAULT].secret).write(
        path
    )
    try:
        yield path
    finally:
        over.set()
        thread.join()
        authenticator.stop()
        context.destroy(linger=0)


def deaf_after(number: int) -> Any:
    """Answers so many heartbeats, then none."""
    heard = iter(range(number))
    return lambda h: [h._replace(kind=Kind.ALIVE).pack(), b"\0"] if next(heard, None) is not None else None


SILENT: list[tuple[str, dict[Kind, Any], str]] = [
    ("next", {Kind.NEXT: None}, "begin"),
    ("announce", {Kind.ANNOUNCE: None}, "announce"),
    ("credit", {Kind.BEGIN: None}, "send"),
    ("streamed", {}, "finish"),
]


@pytest.mark.parametrize(("script", "call"), [s[1:] for s in SILENT], ids=[s[0] for s in SILENT])
def test_a_server_that_falls_silent_is_given_up(
    programs: Path, tmp_path: Path, script: dict[Kind, Any], call: str
) -> None:
    with scripted(tmp_path, {Kind.HEARTBEAT: deaf_after(3), **script}) as path:
        code, said, seconds = run(programs, PENSTOCK_CONNECT=str(path))
    assert code == SERVER_LOST
    assert said.startswith(f"{call}: the server at tcp://127.0.0.1:")
    assert "has not answered for 0." in said or "has not answered for 1." in said
    assert said.endswith("(time-out 0.6 s): is the study still running? `penstock status` in its run directory tells")
    assert seconds < 5


def test_a_connection_that_breaks_is_noticed_before_the_time_out(programs: Path, tmp_path: Path) -> None:
    with scripted(tmp_path, {Kind.PIECE: lambda _: "die"}, timeout_ms=60_000) as path:
        code, said, seconds = run(programs, PENSTOCK_CONNECT=str(path))
    assert code == SERVER_LOST
    assert "lost the connection to a trainer rank at tcp://127.0.0.1:" in said
    assert seconds < 5


def at_the_second_time(answer: Any, before: Any = None) -> Any:
    """Answers the first request as `before` says (None: not at all), any later one as it should be."""
    asked: list[int] = []

    def script(header: Header) -> list[bytes] | None:
        asked.append(header.offset)
        assert asked[0] == header.offset  # a repetition bears the same number
        if len(asked) > 1:
            return answer(header)
        return before(header) if before else None

    return script


def assign(header: Header) -> list[bytes]:
    return [header._replace(kind=Kind.ASSIGN).pack(), Assign((2.0,), False).pack()]


def streamed(header: Header) -> list[bytes]:
    return [header._replace(kind=Kind.STREAMED).pack(), Streamed(3, 0, 0).pack()]


def finished(header: Header) -> list[bytes]:
    return [header._replace(kind=Kind.FINISHED).pack(), b""]


def test_what_is_not_answered_is_asked_again(programs: Path, tmp_path: Path) -> None:
    script = {Kind.NEXT: at_the_second_time(assign), Kind.END: at_the_second_time(streamed), Kind.FINISH: finished}
    with scripted(tmp_path, script, timeout_ms=10_000) as path:
        code, said, seconds = run(programs, PENSTOCK_CONNECT=str(path))
    assert (code, said) == (0, "finished")
    assert seconds > 7  # twice a little over the time after which it asks again


def test_late_second_answers_are_passed_over(programs: Path, tmp_path: Path) -> None:
    def late(header: Header) -> list[bytes]:
        return assign(header._replace(offset=header.offset - 1))

    script = {Kind.ANNOUNCE: at_the_second_time(answer(Kind.ACCEPT, Accept((0,), (True,)).pack()), late)}
    with scripted(tmp_path, script | {Kind.END: streamed, Kind.FINISH: finished}, timeout_ms=10_000) as path:
        code, said, _ = run(programs, PENSTOCK_CONNECT=str(path))
    assert (code, said) == (0, "finished")


def test_hello_is_said_again_over_a_connection_made_anew(programs: Path, tmp_path: Path) -> None:
    def no_hello(header: Header) -> list[bytes]:
        return [header._replace(kind=Kind.REFUSE).pack(), Refuse(Reason.NO_HELLO, "who are you").pack()]

    script = {Kind.NEXT: at_the_second_time(assign, no_hello), Kind.END: streamed, Kind.FINISH: finished}
    with scripted(tmp_path, script, timeout_ms=10_000) as path:
        code, said, seconds = run(programs, PENSTOCK_CONNECT=str(path))
    assert (code, said) == (0, "finished")
    assert seconds < 4  # at once


def test_pieces_that_have_not_arrived_are_missed_at_the_end(programs: Path, tmp_path: Path) -> None:
    def end(header: Header) -> list[bytes]:
        return [header._replace(kind=Kind.STREAMED).pack(), Streamed(1, 1, 0).pack()]

    with scripted(tmp_path, {Kind.END: end}) as path:
        code, said, _ = run(programs, PENSTOCK_CONNECT=str(path))
    assert code == SERVER_LOST
    assert "finish: 2 of 3 pieces have reached a trainer rank" in said
    assert said.endswith("the simulation must be run again")


def test_a_network_that_breaks_costs_an_attempt_at_most(programs: Path, tmp_path: Path) -> None:
    """Control connections are made again without a loss; a data connection with pieces on the way ends the attempt at once."""
    with (
        live_server(tmp_path / "run", U, retries=1) as server,
        Proxy(server.engine._sockets.control_endpoint) as control,
        Proxy(server.engine._sockets.data_endpoint) as data,
        worker(server) as client,
    ):
        server.connect = server.behind(control.endpoint, data.endpoint)
        for simulation in iter(client.next_simulation, None):
            begun, before = time.monotonic(), server.engine.status().received
            process = server.start([programs / "stream", "100", "4", "pause_ms=20"], simulation)
            while server.engine.status().received < before + 10:
                time.sleep(0.01)
            control.cut()
            if simulation.attempt == 1:
                data.cut()
            output = process.communicate(timeout=PATIENCE)[0]
            if simulation.attempt == 1:
                assert process.returncode in (SERVER_LOST, REFUSED), output
                assert time.monotonic() - begun < 20 * busy()
                simulation.fail(output)
            else:
                assert output.splitlines()[-1] == "finished"
                simulation.exited()
        report = server.report()
    assert report["simulations"] == {"requested": 1, "finished": 1, "failed": 0, "restarted": 1, "redrawn": 0}
    assert report["samples"]["unique"] == report["samples"]["expected"] == 100
    assert report["samples"]["duplicates_dropped"] >= 9
    assert control.connections >= 6


def test_an_abandoned_simulation_stops(programs: Path, tmp_path: Path) -> None:
    alive = {Kind.HEARTBEAT: lambda h: [h._replace(kind=Kind.ALIVE).pack(), Alive(h.simulation == 0).pack()]}
    with scripted(tmp_path, alive) as path:
        code, said, _ = run(programs, "1000", "4", "pause_ms=5", PENSTOCK_CONNECT=str(path))
    assert code == ABANDONED
    assert ": the server no longer wants simulation 0, attempt 1: the study is stopping" in said


def answer(kind: Kind, payload: bytes = b"") -> Any:
    return lambda h: [h._replace(kind=kind).pack(), payload]


GARBAGE: list[tuple[str, dict[Kind, Any], str]] = [
    ("no header", {Kind.NEXT: lambda _: [b"hello", b""]}, "header frame of 5 bytes, expected 64"),
    ("version", {Kind.NEXT: lambda h: [h.pack()[:4] + b"\2\0" + h.pack()[6:], b""]}, "wire format version 2"),
    ("three frames", {Kind.NEXT: lambda h: [h.pack(), b"", b""]}, "more than two frames"),
    ("another kind", {Kind.NEXT: answer(Kind.FINISHED)}, "FINISHED in answer to NEXT, expected ASSIGN"),
    ("cut ASSIGN", {Kind.NEXT: answer(Kind.ASSIGN, b"\0\1\0\0\0")}, "payload announces 1 items"),
    ("other parameters", {Kind.NEXT: answer(Kind.ASSIGN, Assign((), False).pack())}, "ASSIGN has 0 parameters"),
    ("cut WELCOME", {Kind.HELLO: answer(Kind.WELCOME, b"\0" * 30)}, "WELCOME cannot be read"),
    ("no rank", {Kind.HELLO: answer(Kind.WELCOME, b"\0" * 41)}, "it names no trainer rank"),
    (
        "too few ids",
        {Kind.ANNOUNCE: answer(Kind.ACCEPT, Accept((), ()).pack())},
        "ACCEPT has 0 fields, announced were 1",
    ),
    ("kind of the other side", {Kind.BEGIN: answer(Kind.ASSIGN)}, "ASSIGN on a data connection"),
    ("cut STREAMED", {Kind.END: answer(Kind.STREAMED, b"\0" * 23)}, "ends 1 bytes too early"),
    ("cut ALIVE", {Kind.HEARTBEAT: answer(Kind.ALIVE)}, "ends 1 bytes too early"),
]


@pytest.mark.parametrize(("script", "problem"), [g[1:] for g in GARBAGE], ids=[g[0] for g in GARBAGE])
def test_garbage_from_the_server_is_an_error(
    programs: Path, tmp_path: Path, script: dict[Kind, Any], problem: str
) -> None:
    with scripted(tmp_path, script, timeout_ms=10_000) as path:
        code, said, seconds = run(programs, PENSTOCK_CONNECT=str(path))
    assert (code, problem in said) == (3, True), said
    assert seconds < 5


def test_refused_pieces_fail_the_stream_at_its_end(programs: Path, tmp_path: Path) -> None:
    def end(header: Header) -> list[bytes]:
        return [header._replace(kind=Kind.STREAMED).pack(), (1).to_bytes(8, "little") + bytes(8) + b"\2" + bytes(7)]

    with scripted(tmp_path, {Kind.END: end}) as path:
        code, said, _ = run(programs, PENSTOCK_CONNECT=str(path))
    assert code == REFUSED
    assert "refused 2 pieces of this simulation; its log says why" in said
