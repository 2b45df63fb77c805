"""The Ray engine: only this package imports ray, and only small control calls go through it.

Fields travel over ZeroMQ straight to the rank they are for; the object store would copy them.
"""

import os
import secrets
import sys

if "ray" not in sys.modules:
    # Ray listens on every address of the machine and runs whatever it is asked to: only whoever has this token may ask. It reads the
    # variables once, when it is loaded; its own processes, which come here with ray loaded, inherit them.
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}

from penstock_server.ray_engine.engine import RayEngine
from penstock_server.ray_engine.local_ray import EngineError

__all__ = ["EngineError", "RayEngine"]
