"""Refusing a torch.export program that holds code of another kind than operators of torch.

`torch.export.load` unpickles what is no plain tensor and evaluates expressions as Python. What is known to do so is
refused here before it is called. This does not make a stranger's program safe: docs/security.md.
"""

from __future__ import annotations

import ast
import io
import json
import re
import zipfile
from collections.abc import Iterator
from typing import Any

import torch

_PLAIN = {"archive_format", "archive_version", "byteorder", "version", "serialization_id"}
_TENSOR = re.compile(r"(.*/)?data/(weights|constants)/(weight|tensor)_\d+")
_SIZE = re.compile(r"L\['\w+'\]\.size\(\)\[\d+\]")  # of an input, in a guard
_FUNCTION = re.compile(
    r"torch\.ops(\.(?!_)\w+){2,3}|torch\.sym_\w+|math\.\w+|_operator\.(?!attrgetter|itemgetter|methodcaller|call)\w+"
)
_NODES = (
    *(ast.Expression, ast.Call, ast.Name, ast.Load, ast.Constant, ast.keyword, ast.BinOp, ast.UnaryOp, ast.Compare),
    *(ast.BoolOp, ast.operator, ast.unaryop, ast.cmpop, ast.boolop),
)
_NAMES = re.compile(r"Symbol|Integer|Rational|Float|Add|Mul|Pow|Mod|Max|Min|Abs|FloorDiv|CleanDiv|[su]\d+|True|False")


class UnsafeProgram(ValueError):
    """A program that could run code of its own while it is loaded."""


def check_program(content: bytes) -> None:
    """Check the content of a torch.export file.

    Args:
        content: of the file.

    Raises:
        UnsafeProgram: it holds a pickle, a compiled library, an expression or a function that loading must not run.
        zipfile.BadZipFile: it is no such file.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        names = archive.namelist()
        if len(set(names)) != len(names):
            raise UnsafeProgram("it holds two files of one name")
        for name in names:
            _check_file(name, archive.read(name))


def _check_file(name: str, content: bytes) -> None:
    if name.endswith(".json"):
        for trouble in _in_json(json.loads(content)):
            raise UnsafeProgram(f"{name} holds {trouble}")
    elif name.endswith(".pt"):
        try:
            torch.load(io.BytesIO(content), weights_only=True)
        except Exception as error:
            raise UnsafeProgram(f"{name} holds more than tensors") from error
    elif name.rpartition("/")[2] not in _PLAIN and not _TENSOR.fullmatch(name):
        raise UnsafeProgram(f"it holds {name!r}, which is neither a tensor nor a graph")


def _in_json(value: Any) -> Iterator[str]:
    """What a graph or a table of weights must not hold."""
    if isinstance(value, list):
        for inner in value:
            yield from _in_json(inner)
    if not isinstance(value, dict):
        return
    for key, inner in value.items():
        if key == "use_pickle" and inner:
            yield "a pickle"
        elif key == "expr_str" and not _is_arithmetic(inner):
            yield f"the expression {str(inner)[:80]!r}"
        elif key == "guards_code" and not all(_is_arithmetic(_SIZE.sub("s0", str(guard))) for guard in inner):
            yield f"code ({str(inner)[:80]!r})"
        elif key == "target" and isinstance(inner, str) and not _FUNCTION.fullmatch(inner):
            yield f"the function {inner[:80]!r}"
        yield from _in_json(inner)


def _is_arithmetic(text: object) -> bool:
    """Whether an expression is made of numbers, sizes and arithmetic alone."""
    try:
        nodes = list(ast.walk(ast.parse(str(text), mode="eval")))
    except (SyntaxError, ValueError, RecursionError):
        return False
    names = (node.id for node in nodes if isinstance(node, ast.Name))
    texts = (node.value for node in nodes if isinstance(node, ast.Constant) and isinstance(node.value, str))
    return (
        all(isinstance(node, _NODES) for node in nodes)
        and all(_NAMES.fullmatch(name) for name in names)
        and all(re.fullmatch(r"\w+", inner) for inner in texts)
        and all(isinstance(node.func, ast.Name) for node in nodes if isinstance(node, ast.Call))
    )
