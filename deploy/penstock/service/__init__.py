"""The trained surrogate as a service: predictions over HTTP."""

from penstock.service.app import make_app
from penstock.service.batches import Batches
from penstock.service.server import listen, make_server, run_service

__all__ = ["Batches", "listen", "make_app", "make_server", "run_service"]
