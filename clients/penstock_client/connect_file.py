"""connect.json: address and keys of the server. The server writes it with mode 0600; clients read it."""

from __future__ import annotations

import json
import os
import re
import stat
from dataclasses import asdict, dataclass
from pathlib import Path

from penstock_client.atomic_file import write_private
from penstock_client.errors import ConnectError

ENVIRONMENT_VARIABLE = "PENSTOCK_CONNECT"
MAX_BYTES = 65536
CURVE_KEY = re.compile(r"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")  # a CURVE key in Z85


@dataclass(frozen=True)
class ConnectInfo:
    """Content of connect.json: one flat JSON object of strings and integers, so that a C client can read it.

    The keys are CURVE keys in Z85 (40 characters), made for this study.

    Attributes:
        study: name of the study.
        incarnation: number of the server's current life; a restart raises it.
        control: endpoint of the coordinator.
        server_public_key: public key of the server.
        client_public_key: public key of the worker that this file was made for.
        client_secret_key: secret key of the same worker.
    """

    study: str
    incarnation: int
    control: str
    server_public_key: str
    client_public_key: str
    client_secret_key: str

    def __repr__(self) -> str:
        return f"ConnectInfo(study={self.study!r}, incarnation={self.incarnation}, control={self.control!r}, keys=***)"

    def write(self, path: Path) -> None:
        """Write the file atomically with mode 0600."""
        write_private(path, json.dumps(asdict(self), indent=1) + "\n")


def read_connect_file(path: str | Path | None = None) -> ConnectInfo:
    """Read connect.json.

    Args:
        path: path of the file; None: the value of PENSTOCK_CONNECT.

    Returns:
        The content, checked.

    Raises:
        ConnectError: no path is given, the file is missing, other users may read it, or it is not a connect.json of
            this version.
    """
    chosen = path if path is not None else os.environ.get(ENVIRONMENT_VARIABLE)
    if not chosen:
        raise ConnectError(
            f"no server given: set {ENVIRONMENT_VARIABLE} to the connect.json in the study's run directory"
        )
    try:
        with Path(chosen).open("rb") as file:
            text = file.read(MAX_BYTES + 1)
            status = os.fstat(file.fileno())
        if len(text) > MAX_BYTES:
            raise ValueError(f"it has more than {MAX_BYTES} bytes")
        info = ConnectInfo(**json.loads(text))
    except OSError as error:
        raise ConnectError(
            f"cannot read {chosen} ({error.strerror}): is the study running, and is this path right?"
        ) from error
    except (ValueError, TypeError, RecursionError) as error:
        raise ConnectError(f"{chosen} is not a connect.json of this version of Penstock: {error}") from error
    for name, kind in ConnectInfo.__annotations__.items():
        if type(getattr(info, name)).__name__ != kind:
            raise ConnectError(f"{chosen}: {name} should be {kind}, is {getattr(info, name)!r}")
        if name.endswith("_key") and not CURVE_KEY.fullmatch(getattr(info, name)):
            raise ConnectError(f"{chosen}: {name} should be a CURVE key, 40 characters of Z85")
    if not 0 <= info.incarnation < 2**32:
        raise ConnectError(f"{chosen}: incarnation should be 0 to {2**32 - 1}, is {info.incarnation}")
    if stat.S_ISREG(status.st_mode) and status.st_mode & 0o077:
        raise ConnectError(
            f"{chosen} holds a secret key and may be read by other users (mode {status.st_mode & 0o777:03o}): run "
            "`chmod 600` on it; if others may have read it, replace the worker's key (penstock key)"
        )
    return info
