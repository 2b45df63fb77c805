"""The Ray engine: only this package imports ray, and only small control calls go through it.

Fields travel over ZeroMQ straight to the rank they are for; the object store would copy them.
"""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from penstock_server.study import Study

if TYPE_CHECKING:
    from penstock_server.engines.ray.engine import RayEngine

__all__ = ["make_ray_engine"]


def make_ray_engine(
    study: Study,
    directory: Path,
    *,
    threads: int,
    own_cores: tuple[int, ...] = (),
    address: str | None = None,
    log: Callable[[str], None] = lambda _line: None,
) -> RayEngine:
    """A `RayEngine`; ray is imported here, since it reads the variables that are set before just once.

    A Ray of our own listens on every address of the machine and runs whatever it is asked to: only whoever has its token may ask. One
    that runs already (address) has rules of its own: where the user has a token, `ray start` has made it ask for that, and it does no
    harm to show it to one that does not ask.
    """
    if "ray" not in sys.modules:
        if address is None:
            os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        elif _has_token():
            os.environ.setdefault("RAY_AUTH_MODE", "token")
    from penstock_server.engines.ray.engine import RayEngine

    return RayEngine(study, directory, threads=threads, own_cores=own_cores, address=address, log=log)


def _has_token() -> bool:
    """Whether the user has a token of Ray's, in one of the three places where it looks for one."""
    given = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
    return given or (Path.home() / ".ray" / "auth_token").is_file()
