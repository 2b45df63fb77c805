"""Finding the problems of a study's Python solver, and of what workers are told of the solver, without running it."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator

import numpy as np

from penstock_client import Field, PenstockError, Solver
from penstock_client.codec import MAX_STRING
from penstock_client.nearest import nearest
from penstock_client.wire import MAX_PIECE_BYTES
from penstock_server.coordinator import solver_description
from penstock_server.study import Study
from penstock_solvers.solver import EXTERNAL, make_solver

DTYPES = ("float32", "float64", "int32", "int64")  # of fields


def raised(place: str, check: Callable[[], object]) -> Iterator[str]:
    """The message of the error that a check raises; `place` goes before a message that does not begin with its own."""
    try:
        check()
    except (PenstockError, ValueError) as error:
        text = str(error)
        yield text if text.startswith("[") else f"{place}{text}"


def python_solver(study: Study) -> tuple[Solver | None, list[str]]:
    """Make the Python solver of a study; None where it has none or it cannot be made, and a line for each problem."""
    section = study.solver
    if section.adapter is None or section.adapter in EXTERNAL:
        return None, []
    problems = []
    if section.concurrency == 0 and study.study.engine == "inline":
        problems.append(
            "[solver] concurrency = 0: the inline engine runs a Python solver itself, and takes no workers; "
            'set 1 or more, or engine = "ray"'
        )
    if section.ranks > 1:
        problems.append(
            f"[solver] ranks = {section.ranks}: a Python solver runs in one process; set ranks = 1 and raise "
            "concurrency, or start an MPI program with command"
        )
    try:
        return make_solver(section.adapter, section.options), problems
    except PenstockError as error:
        return None, [*problems, f"[solver] {error}"]
    except Exception as error:  # a user's constructor, or its module, may raise anything
        why = f"{type(error).__name__}: {error}"
        return None, [*problems, f"[solver] adapter = {section.adapter!r} cannot be made: {why}; correct the solver"]


def streamed_fields(study: Study, solver: Solver | None) -> Iterator[str]:
    """Fields of the study that a Python solver does not stream, or streams in another shape."""
    if solver is None:
        return
    for name, section in study.fields.items():
        field = solver.fields.get(name)
        if field is None:
            yield f"[fields] {name}: the solver streams no such field; {nearest(name, solver.fields)}"
        elif field.static:
            yield f"[fields] {name}: the solver announces it as static, which is for mesh geometry; remove static=True"
        elif field.dtype not in DTYPES:
            yield f"[fields] {name}: the solver streams {field.dtype}, expected one of {', '.join(DTYPES)}"
        elif (size := min(_size(field), MAX_PIECE_BYTES)) > study.server.max_message:
            yield (
                f"[server] max_message = {study.server.max_message}: a message with {name} takes {size} bytes, expected "
                f"at least as many; set max_message = {size}"
            )
        elif section.components not in (None, field.components):
            yield (
                f"[fields] {name}.components = {section.components}: the solver streams {field.components}; "
                "correct it or leave it out"
            )
        elif section.shape is not None and tuple(section.shape) != tuple(field.shape):
            yield (
                f"[fields] {name}.shape = {list(section.shape)}: the solver streams {list(field.shape)}; "
                "correct it or leave it out"
            )


def _size(field: Field) -> int:
    """Bytes of a time step of a field."""
    return field.points * field.components * np.dtype(field.dtype).itemsize


def unknown_parameters(study: Study, solver: Solver | None) -> Iterator[str]:
    """Parameters that a Python solver does not take, where it has the optional method `check_parameters(names)`."""
    check = getattr(solver, "check_parameters", None)
    if check is None:
        return
    try:
        yield from raised("[parameters] ", lambda: check(study.parameters.names))
    except Exception as error:  # a user's method may raise anything
        yield f"[solver] check_parameters of the solver raised {type(error).__name__}: {error}; correct the solver"


def description(study: Study) -> Iterator[str]:
    """What workers are told of [solver], as JSON in one message."""
    for key, value in study.solver.options.items():
        try:
            json.dumps(value)
        except TypeError:
            yield (
                f"[solver] options.{key} = {value}: expected text, a number, true, false, or lists and tables of these; "
                f'write {key} = "{value}"'
            )
            return
    size = len(json.dumps(solver_description(study)).encode())
    if size > MAX_STRING:
        yield (
            f"[solver] takes {size} bytes as JSON: at most {MAX_STRING} can be sent to workers; put large options or "
            "entries into a file, and give its path"
        )
