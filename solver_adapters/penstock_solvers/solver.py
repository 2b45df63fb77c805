"""Finding a Python solver by name or import path."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Mapping
from typing import Any

from penstock_client import FieldError, PenstockError, Solver
from penstock_client.nearest import did_you_mean
from penstock_client.piece import check_fields

BUILT_IN = {
    "heat2d": "penstock_solvers.problems.heat2d:Heat2D",
    "navier_stokes2d": "penstock_solvers.problems.navier_stokes2d:NavierStokes2D",
    "advection1d": "penstock_solvers.problems.advection1d:Advection1D",
    "lorenz": "penstock_solvers.problems.lorenz:Lorenz",
}
EXTERNAL = ("openfoam",)  # adapters that run the solver as a separate process


class SolverError(PenstockError):
    """A solver cannot be found or constructed."""


def make_solver(adapter: str, options: Mapping[str, Any]) -> Solver:
    """Construct a Python solver.

    Args:
        adapter: name of a built-in solver, or "package.module:Class".
        options: arguments of its constructor, by name.

    Returns:
        The solver.

    Raises:
        SolverError: the name, module or class does not exist, or the constructor does not accept the options.
    """
    path = BUILT_IN.get(adapter, adapter)
    module_name, colon, class_name = path.partition(":")
    if not colon:
        known = [*BUILT_IN, *EXTERNAL]
        hint = did_you_mean(adapter, known)
        raise SolverError(
            f'adapter = {adapter!r}: expected one of {", ".join(known)} or "package.module:Class"'
            + (f"; {hint}" if hint else "")
        )
    if not all(part.isidentifier() for part in (*module_name.split("."), class_name)):
        raise SolverError(
            f'adapter = {adapter!r}: expected "package.module:Class", such as "my_solver:Solver" for my_solver.py beside '
            "the study file"
        )
    try:
        made_by = getattr(importlib.import_module(module_name), class_name)
    except SystemExit as error:
        raise SolverError(
            f"adapter = {adapter!r}: {module_name} ends the program as it is imported ({error}); correct the module"
        ) from error
    except ImportError as error:
        raise SolverError(
            f"adapter = {adapter!r}: cannot import {module_name} ({error}); install it or put it beside the study file"
        ) from error
    except AttributeError as error:
        raise SolverError(
            f"adapter = {adapter!r}: module {module_name} has no {class_name!r}; name a class that it defines"
        ) from error
    try:
        inspect.signature(made_by).bind(**options)
    except TypeError as error:
        raise SolverError(
            f"adapter = {adapter!r}: [solver.options] do not fit {class_name}{inspect.signature(made_by)}: {error}"
        ) from error
    try:
        solver: Solver = made_by(**options)
    except SystemExit as error:
        raise SolverError(
            f"adapter = {adapter!r}: {class_name} ends the program as it is made ({error}); raise an error instead"
        ) from error
    for member in ("fields", "run"):
        if not hasattr(solver, member):
            raise SolverError(f"adapter = {adapter!r}: {class_name} has no `{member}`; see penstock_client.Solver")
    try:
        check_fields(solver.fields)
    except FieldError as error:
        raise SolverError(f"adapter = {adapter!r}: {class_name}.{error}") from error
    return solver
