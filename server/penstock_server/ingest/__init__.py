"""From pieces to samples: what a piece must be, which have arrived, and when a time step is whole."""

from penstock_server.ingest.fingerprints import Fingerprint, Fingerprints, merged, without_effect
from penstock_server.ingest.holdings import allowance
from penstock_server.ingest.ingest import Ingest, refuse_before_schema
from penstock_server.ingest.ledger import Ledger
from penstock_server.ingest.sinks import SampleSinks, SimulationIds

__all__ = [
    "Fingerprint",
    "Fingerprints",
    "Ingest",
    "Ledger",
    "SampleSinks",
    "SimulationIds",
    "allowance",
    "merged",
    "refuse_before_schema",
    "without_effect",
]
