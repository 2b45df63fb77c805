"""Wording of the problems in a study file: one line each, with place, value, expectation and remedy."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel, ValidationError

from penstock_client import PenstockError
from penstock_client.nearest import close_names, did_you_mean, nearest
from penstock_server.study import Study

# What to write for a key that has no default to show as an example.
EXAMPLES: dict[tuple[str, ...], str] = {
    ("study",): '[study] with name = "cavity"',
    ("study", "name"): 'name = "cavity"',
    ("parameters",): "[parameters] with one line for each parameter, viscosity = [0.005, 0.02]",
    ("solver",): '[solver] with adapter = "openfoam" and simulations = 64',
    ("solver", "simulations"): "simulations = 64",
    ("solver", "entries", "file"): 'file = "constant/transportProperties"',
    ("solver", "entries", "entry"): 'entry = "nu"',
    ("fields",): "[fields] with one line for each field, U = { components = 3 }",
    ("fields", "components"): "components = 3",
    ("fields", "shape"): "shape = [32, 32]",
    ("training", "optimizer"): 'optimizer = { name = "adam", lr = 1e-3 }',
    ("training", "optimizer", "name"): 'optimizer = { name = "adam", lr = 1e-3 }',
    ("training", "scheduler"): 'scheduler = { name = "StepLR", step_size = 1000 }',
    ("training", "scheduler", "name"): 'scheduler = { name = "StepLR", step_size = 1000 }',
    ("training", "max_batches"): "max_batches = 20000",
    ("training", "target_error"): "target_error = 0.02",
    ("training", "wall_time"): 'wall_time = "2 h"',
}


class StudyError(PenstockError):
    """A study that cannot be run as its file and the command line ask.

    Args:
        problems: one line for each.

    Attributes:
        problems: one line for each.
    """

    def __init__(self, problems: Sequence[str]) -> None:
        super().__init__("\n".join(problems))
        self.problems = list(problems)


def shown(value: object) -> str:
    """Write a value nearly as in TOML, cut to 60 characters."""
    try:
        text = json.dumps(value)
    except TypeError:
        text = repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def place(path: Sequence[str | int]) -> str:
    """Write the path of a key as people do: ("training", "batch_size") as "[training] batch_size"."""
    if not path:
        return "the study file"
    if len(path) == 1:
        return f"[{path[0]}]"
    out = ""
    for part in path[1:]:
        out += f"[{part}]" if isinstance(part, int) else f".{part}" if out else str(part)
    return f"[{path[0]}] {out}"


def _model_at(path: Sequence[str | int], root: type[BaseModel]) -> type[BaseModel] | None:
    """The section class that the table at `path` is read as, or None where the user chooses its keys."""
    annotation: Any = root
    for part in path:
        if isinstance(part, int):
            continue  # one of several tables
        if isinstance(annotation, type) and issubclass(annotation, BaseModel):
            field = annotation.model_fields.get(str(part))
            if field is None:
                return None
            annotation = field.annotation
        else:  # dict[str, Section]
            annotation = get_args(annotation)[-1] if get_args(annotation) else None
        while get_origin(annotation) in (UnionType, Union, Annotated):  # Section | None, Section | list[Section]
            annotation = get_args(annotation)[0]
    return annotation if isinstance(annotation, type) and issubclass(annotation, BaseModel) else None


def _keys(model: type[BaseModel] | None) -> list[str]:
    return [] if model is None else [key for key in model.model_fields if not (model is Study and key == "directory")]


def _example(path: tuple[str | int, ...], root: type[BaseModel], examples: Mapping[tuple[str, ...], str]) -> str:
    """A remedy for a value at `path`: an example that is valid."""
    words = tuple(str(p) for p in path if not isinstance(p, int))
    named = {("solver", "entries"): 2, ("fields",): 1}  # tables whose keys are the user's own names
    at = next((at for table, at in named.items() if words[:at] == table and len(words) > at + 1), None)
    key = words if at is None else (*words[:at], *words[at + 1 :])
    if key in examples:
        return examples[key]
    model = _model_at(path[:-1], root)
    field = model.model_fields.get(words[-1]) if model and words else None
    if field is None or field.is_required() or field.default is None or isinstance(field.default, BaseModel):
        return ""
    return f"{words[-1]} = {shown(field.default)}"


def _real_path(loc: Sequence[str | int], data: object, root: type[BaseModel]) -> tuple[str | int, ...]:
    """The path in the file that pydantic's location stands for.

    A location also holds names of union members, and `bounds` of [parameters], which no file has.
    """
    path: list[str | int] = []
    at: Any = data
    for part in loc:
        try:
            at = at[part]
        except (KeyError, IndexError, TypeError):
            if part not in _keys(_model_at(path, root)) or (path == ["parameters"] and part == "bounds"):
                continue
            at = None
        path.append(part)
    return tuple(path)


def _value_at(path: Sequence[str | int], data: Any) -> Any:
    for part in path:
        data = data[part]
    return data


def _expected(error: Mapping[str, Any]) -> str:
    kind, message = error["type"], str(error["msg"])
    if kind in ("model_type", "dict_type"):
        return "a table"
    if kind == "string_pattern_mismatch":
        return "letters, digits, '.', '_' and '-', starting with a letter or a digit, such as \"cavity\""
    if kind == "literal_error":
        return f"one of {error['ctx']['expected']}".replace(" or ", ", ").replace("'", '"')
    for start in ("Value error, ", "Input should be ", "expected "):
        message = message.removeprefix(start)
    message = message.split(", unable to parse")[0].split(", got a number")[0]
    message = message.replace("a valid integer", "an integer").replace("a valid ", "a ")
    return f"a number {message}" if message.startswith(("greater", "less")) else message


def _unknown_key(path: tuple[str | int, ...], value: object, root: type[BaseModel]) -> tuple[str, str | None]:
    """The line about a key that no section has, and the key that was probably meant."""
    known = _keys(_model_at(path[:-1], root))
    hint = nearest(str(path[-1]), known, shown=16)
    what = "unknown table" if len(path) == 1 else "unknown key"
    said = "" if isinstance(value, Mapping) else f" = {shown(value)}"
    return f"{place(path)}{said}: {what}; {hint}", next(iter(close_names(str(path[-1]), known)), None)


def _parameter_problem(name: str, value: object) -> str:
    write = f"write {name} = [0.5, 2.0]"
    remedy = did_you_mean(name, ("sampler", "file"), write) if isinstance(value, str) else write
    return f"[parameters] {name} = {shown(value)}: expected [low, high], two numbers with low < high; {remedy}"


def problems_of(
    error: ValidationError,
    data: Mapping[str, Any],
    root: type[BaseModel] = Study,
    examples: Mapping[tuple[str, ...], str] = EXAMPLES,
) -> list[tuple[tuple[str | int, ...], str]]:
    """Translate what pydantic found.

    Args:
        error: raised by validating `data` as a `root`.
        data: the tables of the file.
        root: the class of the whole file.
        examples: what to write for a key without a default, by its path.

    Returns:
        Path in the file and line of each problem, one for each path.
    """
    expected: dict[tuple[str | int, ...], list[str]] = {}
    lines: dict[tuple[str | int, ...], str] = {}
    meant: set[tuple[str | int, ...]] = set()  # keys that a misspelt one stands for
    for item in error.errors(include_url=False):
        loc, kind = tuple(item["loc"]), item["type"]
        path = _real_path(loc, data, root)
        if kind == "value_error" and path in ((), *((key,) for key in _keys(root))):
            lines[path] = f"{place(path)} {item['msg'].removeprefix('Value error, ')}"
        elif path[:1] == ("parameters",) and len(path) > 1 and "bounds" in loc:
            path = path[:2]
            lines[path] = _parameter_problem(str(path[1]), _value_at(path, data))
        elif kind == "extra_forbidden":
            lines[path], near = _unknown_key(path, item["input"], root)
            meant |= {(*path[:-1], near)} if near else set()
        elif kind == "missing" or (kind == "too_short" and not item["input"]):
            remedy = _example(path, root, examples)
            what = "missing table" if len(path) == 1 else "missing"
            lines[path] = f"{place(path)}: {what}; add {remedy or 'it'}"
        else:
            expected.setdefault(path, []).append(_expected(item))
    for path, wants in expected.items():
        remedy = _example(path, root, examples)
        hint = f"; for example {remedy}" if remedy else "; change it"
        lines[path] = (
            f"{place(path)} = {shown(_value_at(path, data))}: expected {' or '.join(dict.fromkeys(wants))}{hint}"
        )
    return [(path, line) for path, line in lines.items() if path not in meant or "missing" not in line]
