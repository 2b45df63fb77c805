"""The first time step of a Python solver, checked as a client checks it, without a server.

    python -m penstock_solvers.first_step OUTCOME < TASK

`penstock check` runs this in a process of its own. TASK is JSON: adapter, options, directory, fields, parameters. The
outcome is written into a file as JSON, because a solver may print.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

from penstock_client import Field, Simulation, stream_solver
from penstock_client.payloads import Accept, Announce, Finish, Welcome
from penstock_client.stream import Stream
from penstock_client.wire import Header, Kind
from penstock_solvers.solver import make_solver


class _Nowhere:
    """In the place of a data connection: whatever is sent is dropped."""

    blocked_seconds = 0.0

    def __getattr__(self, name: str) -> Callable[..., bool]:
        return lambda *_arguments, **_named: True


def first_step(task: Mapping[str, Any]) -> dict[str, str]:
    """Run a solver until its first time step.

    Args:
        task: adapter and options of the solver, names of the study's fields, parameters by name.

    Returns:
        "failed": why the simulation would have failed, or "fields": what was sent.
    """
    solver = make_solver(task["adapter"], task["options"])
    failed = ""

    def request(header: Header, payload: bytes, _kind: Kind) -> bytes:
        nonlocal failed
        if header.kind is Kind.ANNOUNCE:
            number = len(Announce.unpack(payload).fields)
            return Accept(tuple(range(number)), (True,) * number).pack()
        if header.kind is Kind.FINISH:
            failed = Finish.unpack(payload).message
        return b""

    names, fields = tuple(task["parameters"]), tuple(task["fields"])
    simulation = Simulation(
        Header(Kind.ASSIGN, attempt=1),
        task["parameters"],
        validation=False,
        ranks=1,
        welcome=Welcome(0, 0, 0, 0, 0, False, ("",), names, fields, ""),
        streams=[cast(Stream, _Nowhere())],
        request=request,
        check=lambda: None,
    )
    steps = stream_solver(solver, simulation, fields)
    if next(steps, None) is None:
        return {"failed": failed or "`run` ended without a time step: expected it to yield the time and the fields"}
    return {"fields": ", ".join(_described(name, solver.fields[name]) for name in fields)}


def _described(name: str, field: Field) -> str:
    components = f" x {field.components}" if field.components > 1 else ""
    return f"{name} {field.shape}{components} {field.dtype}"


if __name__ == "__main__":
    given = json.load(sys.stdin)
    sys.path.insert(0, given["directory"])
    Path(sys.argv[1]).write_text(json.dumps(first_step(given)))
