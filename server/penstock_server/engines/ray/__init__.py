"""The Ray engine: only this package imports ray, and only small control calls go through it.

Fields travel over ZeroMQ directly to their rank; Ray's object store would copy them.
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
    """Make a `RayEngine`. Ray is imported here and not above, since it reads the variables set here only once.

    A Ray of our own listens on all addresses of the machine and runs whatever it is asked to, so only holders of its
    token may ask. A running one has rules of its own: where the user has a token, `ray start` requires it, and a Ray
    that requires none accepts it.

    Args:
        study: the study.
        directory: its run directory.
        threads: CPU threads of each trainer rank.
        own_cores: cores, by number, that the training threads alone run on; empty for no such restriction.
        address: of a Ray that runs already; None for a Ray of its own on this machine.
        log: told what the user should know.
    """
    if "ray" not in sys.modules:
        if address is None:
            os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        elif _has_token():
            os.environ.setdefault("RAY_AUTH_MODE", "token")
    from penstock_server.engines.ray.engine import RayEngine

    return RayEngine(study, directory, threads=threads, own_cores=own_cores, address=address, log=log)


def _has_token() -> bool:
    """Return whether the user has a Ray token, in one of the three places where Ray looks for one."""
    given = "RAY_AUTH_TOKEN" in os.environ or "RAY_AUTH_TOKEN_PATH" in os.environ
    return given or (Path.home() / ".ray" / "auth_token").is_file()
