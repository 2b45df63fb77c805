"""What Penstock receives or reads is never executed: its sources hold none of the calls that could."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
SOURCES = [
    file for room in ("clients", "solver_adapters", "server", "deploy") for file in sorted((ROOT / room).rglob("*.py"))
]
MODULES = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "marshal", "shelve", "yaml", "jsonpickle"}
CALLS = {"eval", "exec", "compile"}


def _name(node: ast.expr) -> str:
    return f"{_name(node.value)}.{node.attr}" if isinstance(node, ast.Attribute) else getattr(node, "id", "?")


def found(source: str) -> Iterator[str]:
    """What could run code that came from outside, as "line: what"."""
    nodes = list(ast.walk(ast.parse(source)))
    checked = any(isinstance(node, ast.Call) and _name(node.func) == "check_program" for node in nodes)
    for node in nodes:
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            yield from (f"{node.lineno}: import {name}" for name in names if name.partition(".")[0] in MODULES)
        if not isinstance(node, ast.Call):
            continue
        name, options = _name(node.func), {k.arg: getattr(k.value, "value", None) for k in node.keywords}
        if name in CALLS or options.get("shell") or options.get("allow_pickle"):
            yield f"{node.lineno}: {name}"
        if name == "torch.load" and options.get("weights_only") is not True:
            yield f"{node.lineno}: torch.load without weights_only=True"
        if name in ("torch.export.load", "torch.jit.load", "torch._inductor.aoti_load_package") and not checked:
            yield f"{node.lineno}: {name} without check_program"
        if name in ("np.load", "numpy.load") and options.get("allow_pickle") is not False:
            yield f"{node.lineno}: {name} without allow_pickle=False"
        if name in ("os.system", "os.popen"):
            yield f"{node.lineno}: {name}"


@pytest.mark.parametrize("file", SOURCES, ids=lambda file: str(file.relative_to(ROOT)))
def test_nothing_in_the_sources_can_run_what_came_from_outside(file: Path) -> None:
    assert list(found(file.read_text())) == []


@pytest.mark.parametrize(
    "source",
    ["import pickle", "from yaml import load", "eval(text)", "torch.load(path)", "torch.load(path, weights_only=False)",
     "torch.export.load(path)", "torch.jit.load(path)",
     "np.load(path)", "np.load(path, allow_pickle=True)", "subprocess.run(text, shell=True)", "os.system(text)"],
)  # fmt: skip
def test_the_search_finds_what_it_looks_for(source: str) -> None:
    assert list(found(source))
