"""Python client of a Penstock server: `Client` and the errors that it raises.

from penstock_client import Client

with Client() as client:
    for simulation in client.simulations():
        for step, field in enumerate(solve(**simulation.parameters)):
            simulation.send(step, T=field)
"""

from penstock_client.client import Client
from penstock_client.connect_file import ConnectInfo, read_connect_file
from penstock_client.errors import (
    Abandoned,
    ConnectError,
    ConnectionBroken,
    FieldError,
    PenstockError,
    Refused,
    ServerLost,
    SimulationFailed,
    WireError,
)
from penstock_client.piece import Field
from penstock_client.reasons import Reason
from penstock_client.simulation import Simulation
from penstock_client.solver import Solver, stream_solver

__all__ = [
    "Abandoned",
    "Client",
    "ConnectError",
    "ConnectInfo",
    "ConnectionBroken",
    "Field",
    "FieldError",
    "PenstockError",
    "Reason",
    "Refused",
    "ServerLost",
    "Simulation",
    "SimulationFailed",
    "Solver",
    "WireError",
    "read_connect_file",
    "stream_solver",
]
