"""Programs that would run code while torch loads them are refused before."""

from __future__ import annotations

import io
import pickle
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from penstock_server.surrogate.predict import CARD, FORMAT, PROGRAM, PredictError, Surrogate
from penstock_server.surrogate.program_check import UnsafeProgram, check_program


class Touch:
    """A pickle that makes the file `pwned`."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.path,)


@pytest.fixture(scope="module")
def program() -> bytes:
    dim = torch.export.Dim("batch")
    made = torch.export.export(nn.Linear(3, 2), (torch.zeros(2, 3),), dynamic_shapes=({0: dim},))
    content = io.BytesIO()
    torch.export.save(made, content)
    return content.getvalue()


def changed(program: bytes, ending: str, change: Callable[[bytes], bytes]) -> bytes:
    """The program with the content of one of its files changed."""
    out = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(program)) as old, zipfile.ZipFile(out, "w") as new:
        assert any(name.endswith(ending) for name in old.namelist())
        for name in old.namelist():
            content = old.read(name)
            new.writestr(name, change(content) if name.endswith(ending) else content)
    return out.getvalue()


def test_a_program_of_ours_is_taken(program: bytes) -> None:
    check_program(program)


@pytest.mark.parametrize(
    "expression",
    [
        "__import__('os').system('id')",
        "Symbol('s0').__class__",
        "(lambda: 1)()",
        "open('x')",
        "s0[0]",
        "Symbol('a b')",
        "(",
    ],
)
def test_an_expression_is_arithmetic(expression: str, program: bytes) -> None:
    evil = changed(
        program,
        "model.json",
        lambda text: text.replace(b"Symbol('s31', positive=True, integer=True)", expression.encode()),
    )
    assert evil != program
    with pytest.raises(UnsafeProgram, match="holds the expression"):
        check_program(evil)


@pytest.mark.parametrize(
    ("ending", "before", "after", "message"),
    [
        ("weights_config.json", b'"use_pickle": false', b'"use_pickle": true', "holds a pickle"),
        ("model.json", b'"guards_code": []', b'"guards_code": ["print(1)"]', "holds code"),
        ("model.json", b"torch.ops.aten.linear.default", b"torch.hub.load", "holds the function 'torch.hub.load'"),
        ("model.json", b"torch.ops.aten.linear.default", b"_operator.methodcaller", "holds the function"),
    ],
)
def test_what_torch_would_run_is_refused(
    ending: str, before: bytes, after: bytes, message: str, program: bytes
) -> None:
    evil = changed(program, ending, lambda text: text.replace(before, after))
    with pytest.raises(UnsafeProgram, match=message):
        check_program(evil)


def test_a_compiled_library_is_refused(program: bytes) -> None:
    content = io.BytesIO(program)
    with zipfile.ZipFile(content, "a") as archive:
        archive.writestr("data/aotinductor/model/code.so", b"\x7fELF")
    with pytest.raises(UnsafeProgram, match=r"code\.so', which is neither a tensor nor a graph"):
        check_program(content.getvalue())


def test_a_pickle_in_a_model_folder_is_not_run_and_told_in_a_line(tmp_path: Path, program: bytes) -> None:
    pwned = tmp_path / "pwned"
    evil = changed(program, "sample_inputs/model.pt", lambda _text: pickle.dumps(Touch(pwned)))
    (tmp_path / PROGRAM).write_bytes(evil)
    (tmp_path / CARD).write_text(f'{{"format": {FORMAT}}}')
    with pytest.raises(PredictError, match="is refused: .* holds more than tensors, which `penstock export` does not"):
        Surrogate.load(tmp_path)
    assert not pwned.exists()
    shutil.copy(__file__, tmp_path / PROGRAM)
    with pytest.raises(PredictError, match="missing or damaged"):
        Surrogate.load(tmp_path)
