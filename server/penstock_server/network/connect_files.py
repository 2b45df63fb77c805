"""Connect files: where the server is, and the keys of one client; and the incarnation that the last one names."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

from penstock_client.connect_file import ConnectInfo, read_connect_file
from penstock_client.errors import PenstockError
from penstock_server.network.keys import DEFAULT, KEYS_FILE, StudyKeys, add_worker, load_keys
from penstock_server.study import Study

CONNECT_FILE = "connect.json"

WORKERS = "workers"

_log = logging.getLogger("penstock.connect_files")


def next_incarnation(directory: Path) -> int:
    """Return one more than the incarnation that last ran in a run directory; 1 if none has.

    Args:
        directory: the run directory.

    Raises:
        ConnectError: its connect.json is damaged.
    """
    path = directory / CONNECT_FILE
    return read_connect_file(path).incarnation + 1 if path.exists() else 1


def write_connect_file(directory: Path, study: Study, incarnation: int, control: str, keys: StudyKeys) -> Path:
    """Write connect.json (0600), and rewrite every other connect file that has been handed out and still exists.

    Args:
        directory: the run directory.
        study: whose name the files hold.
        incarnation: of this run of the server.
        control: endpoint of the coordinator.
        keys: of the study.

    Returns:
        The path of connect.json.
    """
    info = ConnectInfo(study.study.name, incarnation, control, keys.server_public, "", "")
    _write(info, keys, DEFAULT)
    for name, worker in keys.workers.items():
        if name != DEFAULT and not worker.revoked and keys.file_of(name).exists():
            try:
                _write(info, keys, name)
            except OSError as error:
                _log.warning("the connect file of worker %s cannot be written again: %s", name, error)
    return directory / CONNECT_FILE


def hand_out(directory: Path, name: str, file: Path | None = None) -> Path:
    """Make a key for a worker and write its connect file (0600); a running study lets it in at once.

    Args:
        directory: the run directory of a study that has been started before.
        name: of the worker.
        file: where to write it; None: workers/<name>.json in the run directory.

    Returns:
        The path of the file.

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


def local_worker(number: int) -> str:
    """Return the name of the key of a worker on this machine.

    Args:
        number: of the worker.
    """
    return f"local-{number}"


def local_connect_file(directory: Path, number: int) -> Path:
    """Return the connect file of a worker on this machine, with a key of its own; make it if there is none.

    Args:
        directory: the run directory.
        number: of the worker.

    Returns:
        The path of the file.
    """
    name = local_worker(number)
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
