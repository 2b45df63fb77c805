"""The keys of a study: keys.json in its run directory (0600), made at the first start and kept from then on.

It holds the server's pair, and by name the pair of each worker that may connect. A running server looks at it by
itself, so that a worker is let in or shut out without a restart (`penstock_server.network.auth`).
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import stat
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import zmq

from penstock_client.atomic_file import write_private
from penstock_client.connect_file import CURVE_KEY
from penstock_client.errors import PenstockError

KEYS_FILE = "keys.json"
DEFAULT = "default"  # the name of the pair in connect.json
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,63}")
_LOCK = ".keys.lock"


class KeysError(PenstockError):
    """Keys that cannot be used, or a worker's name that cannot be given."""


@dataclass(frozen=True)
class WorkerKey:
    """The keys of one worker, and its connect file.

    Attributes:
        public: its public key, Z85.
        secret: its secret key, Z85.
        file: path of the connect file; relative to the run directory if it is in there.
        revoked: True once the worker may not connect any more.
    """

    public: str
    secret: str
    file: str
    revoked: bool = False

    def __repr__(self) -> str:
        return f"WorkerKey(public={self.public!r}, file={self.file!r}, revoked={self.revoked})"


@dataclass(frozen=True)
class StudyKeys:
    """The content of keys.json when it was read. It is pickled as its path alone: no other program sees the secrets.

    Attributes:
        path: of keys.json.
        server_public: the server's public key, Z85.
        server_secret: the server's secret key, Z85.
        workers: keys by the worker's name.
    """

    path: Path
    server_public: str
    server_secret: str
    workers: Mapping[str, WorkerKey]

    def __repr__(self) -> str:
        return f"StudyKeys({str(self.path)!r}, workers={list(self.workers)})"

    def __reduce__(self) -> tuple[Callable[[Path], StudyKeys], tuple[Path]]:
        return load_keys, (self.path,)

    def allowed(self) -> dict[str, str]:
        """Return the names of the workers that may connect, by public key."""
        return {worker.public: name for name, worker in self.workers.items() if not worker.revoked}

    def revoked(self) -> dict[str, str]:
        """Return the names of the workers that may not connect any more, by public key."""
        return {worker.public: name for name, worker in self.workers.items() if worker.revoked}

    def file_of(self, name: str) -> Path:
        """Return the path of a worker's connect file."""
        return self.path.parent / self.workers[name].file  # an absolute path stays itself


def open_keys(directory: Path) -> StudyKeys:
    """Return the study's keys, made if it has none: a pair for the server and one named "default" for connect.json.

    Args:
        directory: the run directory.

    Raises:
        KeysError: as `load_keys`.
    """
    with _changing(directory):
        path = directory.absolute() / KEYS_FILE
        if path.exists():
            return load_keys(path)
        keys = StudyKeys(path, *_pair(), {DEFAULT: WorkerKey(*_pair(), "connect.json")})
        _save(keys)
        return keys


def load_keys(path: Path) -> StudyKeys:
    """Read keys.json.

    Args:
        path: of the file.

    Raises:
        KeysError: it cannot be read, users other than its owner may read it, it has another owner, or it holds no keys.
    """
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW)
    except OSError as error:
        raise KeysError(
            f"cannot read the study's keys in {path}: {error.strerror}; is it a run directory of yours?"
        ) from error
    with os.fdopen(descriptor) as file:
        found = os.fstat(descriptor)
        mode = stat.S_IMODE(found.st_mode)
        if mode & 0o077:
            raise KeysError(
                f"{path} has mode {mode:04o}, expected 0600: others may have read the study's keys. Run `chmod 600 "
                f"{path}`, or, if "
                "others can log in here, remove the file, so that the next start makes new keys"
            )
        if found.st_uid != os.geteuid():
            raise KeysError(
                f"{path} belongs to user {found.st_uid}, expected {os.geteuid()}, who runs this: run it as that "
                "user, or remove the "
                "file, so that the next start makes new keys"
            )
        try:
            return _parse(path, json.load(file))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise KeysError(
                f"{path} does not hold the keys of a study ({error}): remove it, so that the next start makes new keys"
            ) from error


def add_worker(directory: Path, name: str, file: str) -> StudyKeys:
    """Make a pair for a worker; a name whose key has been revoked gets a new one.

    Args:
        directory: the run directory.
        name: of the worker.
        file: path of its connect file.

    Returns:
        The study's keys with the new pair.

    Raises:
        KeysError: the name is unusable or taken.
    """
    if not NAME.fullmatch(name):
        raise KeysError(f"{name!r} cannot name a worker: expected letters, digits, '.', '_' and '-', at most 64")
    with _changing(directory):
        keys = load_keys(directory.absolute() / KEYS_FILE)
        if name in keys.workers and not keys.workers[name].revoked:
            raise KeysError(
                f"there is a key named {name!r} already, in {keys.file_of(name)}: give another name, or revoke that "
                "one first "
                f"(`penstock key revoke {directory} {name}`)"
            )
        keys = replace(keys, workers={**keys.workers, name: WorkerKey(*_pair(), file)})
        _save(keys)
        return keys


def revoke_worker(directory: Path, name: str) -> None:
    """Revoke the key of a worker; revoking it twice does nothing.

    Args:
        directory: the run directory.
        name: of the worker.

    Raises:
        KeysError: there is no worker of that name.
    """
    with _changing(directory):
        keys = load_keys(directory.absolute() / KEYS_FILE)
        if name not in keys.workers:
            raise KeysError(f"there is no key named {name!r}: expected one of {', '.join(keys.workers)}")
        _save(replace(keys, workers={**keys.workers, name: replace(keys.workers[name], revoked=True)}))


def _pair() -> tuple[str, str]:
    public, secret = zmq.curve_keypair()
    return public.decode(), secret.decode()


@contextmanager
def _changing(directory: Path) -> Iterator[None]:
    """Hold keys.json for reading and rewriting it: a starting worker and a command may want it at the same time."""
    descriptor = os.open(directory / _LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _save(keys: StudyKeys) -> None:
    server = {"public": keys.server_public, "secret": keys.server_secret}
    workers = {name: asdict(worker) for name, worker in keys.workers.items()}
    write_private(keys.path, json.dumps({"server": server, "workers": workers}, indent=1) + "\n")


def _parse(path: Path, data: Any) -> StudyKeys:
    workers = {name: WorkerKey(**values) for name, values in data["workers"].items()}
    keys = StudyKeys(path, data["server"]["public"], data["server"]["secret"], workers)
    for name, worker in workers.items():
        if not NAME.fullmatch(name) or type(worker.revoked) is not bool or not isinstance(worker.file, str):
            raise ValueError(f"the worker {name!r}")
    for key in [keys.server_public, keys.server_secret, *(k for w in workers.values() for k in (w.public, w.secret))]:
        if not CURVE_KEY.fullmatch(key):
            raise ValueError("a key that is not 40 characters of Z85")
    return keys
