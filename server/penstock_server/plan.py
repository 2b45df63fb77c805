"""What both engines set a study up with: its simulations, what clients are told, the run directory's incarnation."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import structlog

from penstock_client.connect_file import ConnectInfo, read_connect_file
from penstock_client.errors import PenstockError
from penstock_client.payloads import Welcome
from penstock_server.config import Study
from penstock_server.keys import DEFAULT, KEYS_FILE, StudyKeys, add_worker, load_keys
from penstock_server.parameters import ParameterSpace
from penstock_server.simulations import Point

COALESCE_BYTES = 64 * 1024
COALESCE_MS = 20
CONNECT_FILE = "connect.json"
WORKERS = "workers"

_log = structlog.get_logger("penstock.plan")


def make_plan(study: Study) -> list[Point]:
    """The study's simulations by id: those to train on first, then the held-out ones.

    Raises PenstockError where the parameter space cannot be sampled as asked.
    """
    space = ParameterSpace(study.parameters, study.directory)
    training, held_out = study.solver.simulations, study.solver.validation_simulations
    points = space.draw(training, study.study.seed)
    plan = [Point(tuple(map(float, row)), validation=False) for row in points]
    if held_out:
        points = space.draw(held_out, study.study.seed, validation=True, training=training)
        plan += [Point(tuple(map(float, row)), validation=True) for row in points]
    return plan


def make_spares(study: Study) -> list[Point]:
    """The points that may replace training simulations which have failed for good, in this order.

    Raises PenstockError or ValueError as `make_plan`, and where the sampler has no further points.
    """
    training, redraws = study.solver.simulations, study.solver.redraws
    if not redraws:
        return []
    points = ParameterSpace(study.parameters, study.directory).further(redraws, study.study.seed, training=training)
    return [Point(tuple(map(float, row)), validation=False) for row in points]


def solver_description(study: Study) -> dict[str, Any]:
    """What a worker must know to run the study's solver: its [solver] section, and the names it refers to."""
    return {
        **study.solver.model_dump(),
        "study": study.study.name,
        "directory": study.directory,
        "parameters": list(study.parameters.names),
        "fields": list(study.fields),
    }


def make_welcome(study: Study, endpoints: tuple[str, ...], *, in_process: bool = False) -> Welcome:
    """What every client of the study is told.

    in_process: clients and server share one thread. Then nobody falls silent, and nothing waits for company, which would make the
    order of arrivals a matter of milliseconds.
    """
    server = study.server
    return Welcome(
        heartbeat_ms=int(server.heartbeat * 1000) if not in_process else 0,
        server_timeout_ms=int(server.server_timeout * 1000),
        credit_bytes=study.buffer.credit,
        coalesce_bytes=COALESCE_BYTES if not in_process else 0,
        coalesce_ms=COALESCE_MS,
        pin_simulations=study.samples.window > 1,
        rank_endpoints=endpoints,
        parameters=study.parameters.names,
        fields=tuple(study.fields),
        solver=json.dumps(solver_description(study)),
    )


def next_incarnation(directory: Path) -> int:
    """One more than the incarnation that last ran in this directory. Raises ConnectError where its connect.json is damaged."""
    path = directory / CONNECT_FILE
    return read_connect_file(path).incarnation + 1 if path.exists() else 1


def write_connect_file(directory: Path, study: Study, incarnation: int, control: str, keys: StudyKeys) -> Path:
    """Write connect.json (0600), and anew every other connect file that has been handed out and still lies where it was written.

    Returns the path of connect.json.
    """
    info = ConnectInfo(study.study.name, incarnation, control, keys.server_public, "", "")
    _write(info, keys, DEFAULT)
    for name, worker in keys.workers.items():
        if name != DEFAULT and not worker.revoked and keys.file_of(name).exists():
            try:
                _write(info, keys, name)
            except OSError as error:
                _log.warning("a worker's connect file cannot be written anew", worker=name, problem=str(error))
    return directory / CONNECT_FILE


def hand_out(directory: Path, name: str, file: Path | None = None) -> Path:
    """Make a key for a worker and write its connect file (0600); a running study lets it in at once.

    Args:
        directory: the run directory of a study that has been started before. file: default: workers/<name>.json in there.

    Raises:
        PenstockError: the name is taken or unusable, the study has not been started, or the file cannot be written.
    """
    info = read_connect_file(directory / CONNECT_FILE)
    if name == DEFAULT and file is not None:
        raise PenstockError(
            f"the key named {DEFAULT!r} is the one in {CONNECT_FILE}: leave out --out, or give another name"
        )
    if file is not None and not file.absolute().parent.is_dir():
        raise PenstockError(f"{file}: there is no folder {file.absolute().parent}; make it, or give another --out")
    (directory / WORKERS).mkdir(mode=0o700, exist_ok=True)
    inside = CONNECT_FILE if name == DEFAULT else f"{WORKERS}/{name}.json"
    return _write(info, add_worker(directory, name, inside if file is None else str(file.absolute())), name)


def local_connect_file(directory: Path, number: int) -> Path:
    """The connect file of worker `number` of this machine, with a key of its own; made where there is none yet."""
    name = f"local-{number}"
    keys = load_keys(directory.absolute() / KEYS_FILE)
    if name not in keys.workers or keys.workers[name].revoked:
        return hand_out(directory, name)
    if not keys.file_of(name).exists():
        return _write(read_connect_file(directory / CONNECT_FILE), keys, name)
    return keys.file_of(name)


def _write(info: ConnectInfo, keys: StudyKeys, name: str) -> Path:
    worker = keys.workers[name]
    replace(info, client_public_key=worker.public, client_secret_key=worker.secret).write(keys.file_of(name))
    return keys.file_of(name)
