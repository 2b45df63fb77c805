"""A Docker engine for tests: the one that runs, or one of our own; a base image where none can be pulled; docker-compose."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from waiting import PATIENCE, wait_for

ROOT = Path(__file__).parents[2]
ENGINE = ROOT / "build" / "docker"  # images of an engine of our own stay there, for the next time
BASE = "debian:bookworm-slim"
CERTIFICATES = Path("/usr/local/share/ca-certificates")
WHEELS = ROOT / "docker" / "wheels"


def docker(*arguments: str | Path, check: bool = True) -> str:
    """Run `docker ARGUMENT ...`; returns what it printed."""
    done = subprocess.run(["docker", *map(str, arguments)], capture_output=True, text=True, check=False)
    assert done.returncode == 0 or not check, f"docker {' '.join(map(str, arguments))}: {done.stdout}{done.stderr}"
    return done.stdout.strip()


def _answers(*arguments: str) -> bool:
    return subprocess.run(["docker", *arguments], capture_output=True, check=False).returncode == 0


@contextmanager
def engine() -> Iterator[None]:
    """A Docker engine: the one that answers already, else one that is started for the tests, which needs root."""
    if _answers("info"):
        yield
        return
    assert os.geteuid() == 0, "no Docker engine answers, and only root can start one: start it, or run as root"
    ENGINE.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="penstock-docker-") as scratch, (ENGINE / "dockerd.log").open("w") as log:
        host = f"unix://{scratch}/docker.sock"
        options = ["--host", host, "--data-root", ENGINE / "data", "--exec-root", f"{scratch}/exec"]
        process = subprocess.Popen(
            ["dockerd", *options, "--pidfile", f"{scratch}/pid"], stdout=log, stderr=subprocess.STDOUT
        )
        before = os.environ.get("DOCKER_HOST")
        os.environ["DOCKER_HOST"] = host
        try:
            wait_for(lambda: process.poll() is not None or _answers("info"), 120.0)
            assert process.poll() is None, f"dockerd has ended; see {ENGINE / 'dockerd.log'}"
            yield
        finally:
            os.environ.pop("DOCKER_HOST")
            if before is not None:
                os.environ["DOCKER_HOST"] = before
            process.terminate()
            process.wait(PATIENCE)


def provide_base_image() -> None:
    """Pull the base image, or, where no registry can be reached, make it with debootstrap."""
    if _answers("image", "inspect", BASE) or _answers("pull", BASE):
        return
    with tempfile.TemporaryDirectory(prefix="penstock-base-") as scratch:
        tree = Path(scratch, "tree")
        subprocess.run(["debootstrap", "--variant=minbase", "bookworm", tree], check=True, stdout=subprocess.DEVNULL)
        _trust_what_this_machine_trusts(tree)
        for left in ("var/cache/apt/archives", "var/lib/apt/lists"):
            shutil.rmtree(tree / left)
            (tree / left / "partial").mkdir(parents=True)
        packed = Path(scratch, "tree.tar")
        subprocess.run(["tar", "-C", tree, "-cf", packed, "."], check=True)
        docker("import", packed, BASE)


def _trust_what_this_machine_trusts(tree: Path) -> None:
    """Sources of packages, settings of apt and certificates, as on this machine."""
    for source in Path("/etc/apt/sources.list.d").glob("debian.sources"):
        shutil.copy(source, tree / "etc/apt/sources.list.d")
        (tree / "etc/apt/sources.list").unlink(missing_ok=True)
    settings = subprocess.run(["apt-config", "dump"], capture_output=True, text=True, check=True).stdout.splitlines()
    fetching = [line for line in settings if line.startswith(("Acquire::Check-", "Acquire::http", "Acquire::https"))]
    (tree / "etc/apt/apt.conf.d/99this-machine").write_text("\n".join([*fetching, ""]))
    if CERTIFICATES.is_dir():
        shutil.copytree(CERTIFICATES, tree / CERTIFICATES.relative_to("/"), dirs_exist_ok=True)
        (tree / "etc/pip.conf").write_text("[global]\ncert = /etc/ssl/certs/ca-certificates.crt\n")


@contextmanager
def torch_for_the_build() -> Iterator[dict[str, str]]:
    """Variables for the build: where pip finds torch on this machine (PIP_FIND_LINKS), that file is handed to it."""
    found = [
        wheel for folder in os.environ.get("PIP_FIND_LINKS", "").split() for wheel in Path(folder).glob("torch-*.whl")
    ]
    if not found or WHEELS.exists():
        yield {}
        return
    WHEELS.mkdir()
    try:
        for wheel in found:
            shutil.copy(wheel, WHEELS)
        yield {"TORCH_INDEX": "https://pypi.org/simple"}
    finally:
        shutil.rmtree(WHEELS)


class Compose:
    """`docker-compose` with the files of the tests, as a project of its own.

    Args:
        project: its name; containers and volumes have it in theirs.
        environment: variables, in addition to those of this process.
    """

    def __init__(self, project: str, environment: Mapping[str, str]) -> None:
        self._project = project
        self.environment = dict(environment)
        program = ["docker-compose"] if shutil.which("docker-compose") else ["docker", "compose"]
        files = (ROOT / "docker" / "compose.yaml", ROOT / "tests" / "docker" / "compose.test.yaml")
        self._command = [
            *program,
            "--project-name",
            project,
            *(part for file in files for part in ("--file", str(file))),
        ]

    def __call__(self, *arguments: str, check: bool = True, **environment: str) -> str:
        """Run a command of it; returns what it printed on standard output."""
        done = subprocess.run(
            [*self._command, *arguments],
            env={**os.environ, **self.environment, **environment},
            capture_output=True,
            text=True,
            check=False,
            stdin=subprocess.DEVNULL,
        )
        assert done.returncode == 0 or not check, f"{' '.join(arguments)}: {done.stdout}{done.stderr}"
        return done.stdout.strip()

    def containers(self, service: str) -> list[str]:
        """The containers of a service, running or not, by their numbers."""
        label = "com.docker.compose"
        found = docker(
            *("ps", "--all", "--quiet", "--filter", f"label={label}.project={self._project}"),
            *("--filter", f"label={label}.service={service}", "--filter", f"label={label}.oneoff=False"),
        ).split()
        return sorted(found, key=lambda c: int(inspect(c)["Config"]["Labels"][f"{label}.container-number"]))


def inspect(container: str) -> dict[str, Any]:
    """What the engine knows of a container."""
    return json.loads(docker("inspect", container))[0]


def state(container: str) -> dict[str, Any]:
    """The state of a container: "Status", "Health", "Pid", "ExitCode" and so on."""
    return inspect(container)["State"]


def text_in(container: str, path: str) -> str:
    """A file of a container, running or not; "" where it is not there."""
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder, "copy")
        docker("cp", f"{container}:{path}", copy, check=False)
        return copy.read_text() if copy.is_file() else ""


def lines_in(container: str, path: str) -> list[dict[str, Any]]:
    """The whole lines of a JSON lines file of a container."""
    return [json.loads(line) for line in text_in(container, path).splitlines(keepends=True) if line.endswith("\n")]
