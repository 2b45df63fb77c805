"""From pieces to samples: what a piece must be, which have arrived, and when a time step is whole."""

from penstock_server.ingest.ingest import Ingest, refuse_before_schema
from penstock_server.ingest.ledger import Ledger
from penstock_server.ingest.sinks import SampleSinks, SimulationIds

__all__ = ["Ingest", "Ledger", "SampleSinks", "SimulationIds", "refuse_before_schema"]
