"""The Ray engine: only this package imports ray, and only small control calls go through it.

Fields travel over ZeroMQ straight to the rank they are for; the object store would copy them.
"""

from penstock_server.ray_engine.engine import RayEngine
from penstock_server.ray_engine.local_ray import EngineError

__all__ = ["EngineError", "RayEngine"]
