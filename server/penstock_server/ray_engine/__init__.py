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

from penstock_server.config import Study

if TYPE_CHECKING:
    from penstock_server.ray_engine.engine import RayEngine

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
    that runs already (address) has rules of its own.
    """
    if address is None and "ray" not in sys.modules:
        os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    from penstock_server.ray_engine.engine import RayEngine

    return RayEngine(study, directory, threads=threads, own_cores=own_cores, address=address, log=log)
