"""The interface of a solver written in Python, and the streaming of its time steps."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any, Protocol

from numpy.typing import ArrayLike

from penstock_client.errors import Abandoned, FieldError, PenstockError, Refused, ServerLost, SimulationFailed
from penstock_client.piece import Field, check_fields
from penstock_client.reasons import Reason
from penstock_client.simulation import Simulation

# Refusals of what the solver computes: the same parameters give the same again.
FINAL_REASONS = (Reason.SCHEMA, Reason.SIZE, Reason.DTYPE, Reason.NOT_FINITE)

_log = logging.getLogger("penstock.solver")


class Solver(Protocol):
    """The interface of a Python solver: any class with these two members.

    A solver may also have a method `check_parameters(names)`, which raises ValueError if the names of the study's
    parameters include an unknown one or lack a required one. Penstock calls it before the study starts.
    """

    @property
    def fields(self) -> Mapping[str, Field]:
        """Shape, components and dtype of each field that `run` yields, by name."""

    def run(self, parameters: Mapping[str, float]) -> Iterator[tuple[float, Mapping[str, ArrayLike]]]:
        """Run one simulation.

        Args:
            parameters: value of each parameter, by name.

        Yields:
            Physical time in the solver's units, and the fields by name, for each time step.
        """


def stream_solver(solver: Solver, simulation: Simulation, fields: tuple[str, ...], every: int = 1) -> Iterator[int]:
    """Run a solver for one simulation and send its time steps.

    The simulation's end is always reported: finished at the end; failed if the solver raises an error or the server
    refuses its fields; handed back if the study wants no more or the caller closes this generator. It fails for good
    if the fields do not fit or are not finite, or if the solver raises SimulationFailed with `final=True`.

    Args:
        solver: the solver.
        simulation: the simulation that the server has assigned.
        fields: names of the fields to send.
        every: send every n-th time step.

    Yields:
        The number of each time step, once it has been sent.

    Raises:
        ServerLost: the server stopped answering.
    """
    try:
        check_fields(solver.fields)
        simulation.announce(None, **{name: field for name, field in solver.fields.items() if name in fields})
        sent = 0
        for number, yielded in enumerate(solver.run(simulation.parameters)):
            time, values = _time_and_fields(yielded)
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
            simulation.fail(str(refused), final=refused.reason in FINAL_REASONS)
    except (Exception, SystemExit, KeyboardInterrupt) as error:  # of the solver: its simulation fails, not the worker
        # Errors of Penstock's own describe themselves; a solver's error needs its traceback.
        trace = None if isinstance(error, PenstockError) else error
        _log.error("simulation %d failed: %s", simulation.id, error, exc_info=trace)
        text = str(error) if isinstance(error, SimulationFailed) else f"{type(error).__name__}: {error}"
        simulation.fail(text, final=getattr(error, "final", isinstance(error, FieldError)) is True)


def _time_and_fields(yielded: Any) -> tuple[float, Mapping[str, ArrayLike]]:
    if not isinstance(yielded, tuple) or len(yielded) != 2 or not isinstance(yielded[1], Mapping):
        what = f"{len(yielded)} values" if isinstance(yielded, tuple) else f"a {type(yielded).__name__}"
        raise FieldError(
            f'the solver\'s `run` yielded {what}: expected the physical time and the fields, such as time, {{"u": u}}'
        )
    return yielded
