"""What both engines set a study up with: its simulations, what clients are told, the run directory's incarnation."""

from __future__ import annotations

import json
from typing import Any

from penstock_client.payloads import Welcome
from penstock_server.coordinator.simulations import Point
from penstock_server.study import ParameterSpace, Study

COALESCE_BYTES = 64 * 1024
COALESCE_MS = 20


def make_plan(study: Study) -> list[Point]:
    """The study's simulations by id: those to train on first, then the held-out ones.

    Raises PenstockError where the parameter space cannot be sampled as asked.
    """
    space = ParameterSpace(study.parameters, study.directory)
    training, held_out = study.solver.simulations, study.solver.validation_simulations
    points = space.draw(training, study.study.seed)
    plan = [Point(tuple(map(float, row)), validation=False) for row in points]
    if held_out:
        points = space.draw(held_out, study.study.seed, validation=True, training=training)
        plan += [Point(tuple(map(float, row)), validation=True) for row in points]
    return plan


def make_spares(study: Study) -> list[Point]:
    """The points that may replace training simulations which have failed for good, in this order.

    Raises PenstockError or ValueError as `make_plan`, and where the sampler has no further points.
    """
    training, redraws = study.solver.simulations, study.solver.redraws
    if not redraws:
        return []
    points = ParameterSpace(study.parameters, study.directory).further(redraws, study.study.seed, training=training)
    return [Point(tuple(map(float, row)), validation=False) for row in points]


def solver_description(study: Study) -> dict[str, Any]:
    """What a worker must know to run the study's solver: its [solver] section, and the names it refers to."""
    return {
        **study.solver.model_dump(),
        "study": study.study.name,
        "directory": study.directory,
        "parameters": list(study.parameters.names),
        "fields": list(study.fields),
    }


def make_welcome(study: Study, endpoints: tuple[str, ...], *, in_process: bool = False) -> Welcome:
    """What every client of the study is told.

    in_process: clients and server share one thread. Then nobody falls silent, and nothing waits for company, which
    would make the order of arrivals a matter of milliseconds.
    """
    server = study.server
    return Welcome(
        heartbeat_ms=int(server.heartbeat * 1000) if not in_process else 0,
        server_timeout_ms=int(server.server_timeout * 1000),
        credit_bytes=study.buffer.credit,
        coalesce_bytes=COALESCE_BYTES if not in_process else 0,
        coalesce_ms=COALESCE_MS,
        pin_simulations=study.samples.window > 1,
        rank_endpoints=endpoints,
        parameters=study.parameters.names,
        fields=tuple(study.fields),
        solver=json.dumps(solver_description(study)),
    )
