"""What a solver written in Python is, and how its time steps are streamed."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Protocol

from numpy.typing import ArrayLike

from penstock_client.errors import Abandoned, Refused, ServerLost
from penstock_client.piece import Field
from penstock_client.reasons import Reason
from penstock_client.simulation import Simulation

_log = logging.getLogger("penstock.solver")


class Solver(Protocol):
    """Any class with these two members.

    fields: name to `Field` (shape, components, dtype) of what `run` yields.

    It may also have `check_parameters(names)`, which raises ValueError for names of parameters that are unknown or missing; it is
    called before the study starts.
    """

    @property
    def fields(self) -> Mapping[str, Field]: ...

    def run(self, parameters: Mapping[str, float]) -> Iterator[tuple[float, Mapping[str, ArrayLike]]]:
        """Yield (physical time, fields) for one time step after the other."""


def stream_solver(solver: Solver, simulation: Simulation, fields: tuple[str, ...], every: int = 1) -> Iterator[int]:
    """Run a solver for one simulation and send each `every`-th time step; yields each step number once it is sent.

    The simulation is always reported: finished at the end, failed when the solver raises or its fields are refused, handed
    back when the study wants no more or the caller closes this generator. Only ServerLost passes through.
    """
    try:
        simulation.announce(None, **{name: field for name, field in solver.fields.items() if name in fields})
        sent = 0
        for number, (time, values) in enumerate(solver.run(simulation.parameters)):
            if number % every == 0:
                simulation.send(sent, time, None, **{name: values[name] for name in fields if name in values})
                yield sent
                sent += 1
        simulation.finish()
    except (GeneratorExit, Abandoned):
        simulation.hand_back()
    except ServerLost:
        raise
    except Refused as refused:
        if refused.reason is Reason.STUDY_OVER:
            simulation.hand_back()
        else:
            simulation.fail(str(refused))
    except Exception as error:  # whatever a solver may raise costs its simulation and nothing else
        _log.error("simulation %d failed", simulation.id, exc_info=error)
        simulation.fail(f"{type(error).__name__}: {error}")
