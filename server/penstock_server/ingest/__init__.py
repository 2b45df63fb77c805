"""From pieces to samples: what a piece must be, which have arrived, and when a time step is whole."""

from penstock_server.ingest.ingest import Ingest, Message
from penstock_server.ingest.ledger import Ledger
from penstock_server.ingest.sinks import SampleSinks, SimulationIds

__all__ = ["Ingest", "Ledger", "Message", "SampleSinks", "SimulationIds"]
