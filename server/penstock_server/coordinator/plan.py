"""What a study starts with: its simulations, and what clients are told."""

from __future__ import annotations

import json
from typing import Any

from penstock_client.payloads import Welcome
from penstock_server.coordinator.simulations import Point
from penstock_server.study import ParameterSpace, Study

COALESCE_BYTES = 64 * 1024
COALESCE_MS = 20


def make_plan(study: Study) -> list[Point]:
    """Draw the study's simulations, by id: those to train on first, then the held-out ones.

    Args:
        study: its [parameters], [solver] and seed.

    Raises:
        PenstockError: the parameter space cannot be sampled as asked.
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
    """Draw the points that may replace training simulations which have failed for good, in this order.

    Args:
        study: its [parameters], [solver] and seed.

    Raises:
        PenstockError: as `make_plan`, or the sampler has no further points.
    """
    training, redraws = study.solver.simulations, study.solver.redraws
    if not redraws:
        return []
    points = ParameterSpace(study.parameters, study.directory).further(redraws, study.study.seed, training=training)
    return [Point(tuple(map(float, row)), validation=False) for row in points]


def solver_description(study: Study) -> dict[str, Any]:
    """Return what a worker must know to run the study's solver: [solver], and the names it refers to."""
    return {
        **study.solver.model_dump(),
        "study": study.study.name,
        "directory": study.directory,
        "parameters": list(study.parameters.names),
        "fields": list(study.fields),
    }


def make_welcome(study: Study, endpoints: tuple[str, ...], *, in_process: bool = False) -> Welcome:
    """Make the answer to HELLO, the same for every client.

    Args:
        study: its [server], [buffer], [samples], [parameters], [fields] and [solver].
        endpoints: one for each trainer rank.
        in_process: clients and server share one thread. Then there are no heartbeats, and no piece waits for further
            ones, which would let the clock decide the order of arrivals.
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
