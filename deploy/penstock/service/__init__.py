"""The trained surrogate as a service: predictions over HTTP."""

from penstock.service.app import make_app
from penstock.service.batches import Batches

__all__ = ["Batches", "make_app"]
