"""Which simulations run, who runs them, and who is alive."""

from penstock_server.coordinator.coordinator import Coordinator
from penstock_server.coordinator.plan import make_plan, make_spares, make_welcome, solver_description
from penstock_server.coordinator.simulations import Point, SimulationCounts

__all__ = [
    "Coordinator",
    "Point",
    "SimulationCounts",
    "make_plan",
    "make_spares",
    "make_welcome",
    "solver_description",
]
