"""Every built-in model and ensemble, exported as a torch program and as ONNX, gives the trained model's numbers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from torch import Tensor, nn

from penstock_server.study import Batch, FieldSpec, ModelSection, SampleSpec, TrainingSection
from penstock_server.surrogate import Surrogate
from penstock_server.surrogate.export import ExportError, ModelCard, export_model
from penstock_server.training import Normaliser, Trainer

LINE = SampleSpec(("a",), (FieldSpec("u", 1, (16,)), FieldSpec("v", 2, (16,))))
GRID = SampleSpec(("a",), (FieldSpec("u", 1, (8, 8)),))
WINDOWS = SampleSpec(("a",), (FieldSpec("u", 1, (16,)),), window=2)
BUNDLES = SampleSpec(("a",), (FieldSpec("u", 1, (16,)),), window=4, bundle=2)
SPECS = {"line": LINE, "grid": GRID, "window": WINDOWS, "bundle": BUNDLES}
CARD = ModelCard("wave", 7, {"a": (1.0, 2.0)})
CASES = [
    ("mlp", {"hidden": [8]}, "line", 1, "pt2"),
    ("mlp", {"hidden": [8]}, "bundle", 1, "onnx"),
    ("mlp", {"hidden": [8]}, "line", 3, "onnx"),
    ("mlp", {"hidden": [8]}, "window", 3, "pt2"),
    ("fno", {"width": 4, "modes": 3, "layers": 1}, "grid", 1, "onnx"),
    ("fno", {"width": 4, "modes": 4, "layers": 1}, "bundle", 1, "pt2"),
    ("unet", {"width": 4, "depth": 1}, "grid", 1, "onnx"),
    ("unet", {"width": 4, "depth": 1}, "window", 2, "pt2"),
    ("mp_pde", {"hidden": 8, "layers": 1}, "bundle", 1, "pt2"),
    ("mp_pde", {"hidden": 8, "layers": 1}, "bundle", 1, "onnx"),
]


def trained(spec: SampleSpec, name: str = "mlp", members: int = 1, **options: Any) -> Trainer:
    rng = np.random.default_rng(0)
    inputs = rng.uniform(1.0, 2.0, (20, spec.window, spec.n_inputs)).astype(np.float32)
    targets = rng.normal(300.0, 20.0, (20, spec.window, spec.width)).astype(np.float32)
    normaliser = Normaliser(spec)
    normaliser.update(inputs, targets)
    model = ModelSection.model_validate({"name": name, **options})
    trainer = Trainer(spec, model, TrainingSection(members=members), normaliser, device="cpu")
    trainer.step(Batch(torch.from_numpy(inputs), torch.from_numpy(targets)))
    return trainer


@pytest.mark.parametrize(("name", "options", "shape", "members", "form"), CASES)
def test_the_file_gives_the_trained_models_numbers(
    tmp_path: Path, name: str, options: dict[str, Any], shape: str, members: int, form: Any
) -> None:
    spec = SPECS[shape]
    trainer = trained(spec, name, members, **options)
    export_model(tmp_path, trainer, spec, CARD, form)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["card.json", f"surrogate.{form}"]
    generator = torch.Generator().manual_seed(5)
    n = 3
    inputs = 1 + torch.rand(n, spec.n_inputs, generator=generator)
    state = 300 + 20 * torch.randn(n, spec.state_width, generator=generator) if spec.window > 1 else None
    each = torch.cat(list(trainer.predict_chunks(inputs, state, each_member=True)), dim=1)
    if form == "onnx":
        session = onnxruntime.InferenceSession(tmp_path / "surrogate.onnx", providers=["CPUExecutionProvider"])
        assert [i.name for i in session.get_inputs()] == ["inputs", "state"][: 1 + (spec.window > 1)]
        assert [o.name for o in session.get_outputs()] == ["targets", "spread"][: 1 + (members > 1)]
        fed = {"inputs": inputs.numpy(), **({} if state is None else {"state": state.numpy()})}
        outputs = session.run(None, fed)
    else:
        surrogate = Surrogate.load(tmp_path)
        fields: list[dict[str, np.ndarray]] = []
        outputs = []
        for row, own in zip(inputs, [None] * n if state is None else state, strict=True):
            before = None if own is None else {"u": own.numpy().reshape(spec.bundle, -1)}
            if spec.bundle == 1 and before is not None:
                before = {"u": before["u"][0]}
            times = [float(row[-1]) + k for k in range(spec.bundle)]
            prediction = surrogate.predict({"a": float(row[0])}, times, initial=before)
            fields.append(prediction.arrays())
        for suffix in ("", "_spread")[: 1 + (members > 1)]:
            rows = [
                np.concatenate([f[field.name + suffix].reshape(spec.bundle, -1) for field in spec.fields], axis=1)
                for f in fields
            ]
            outputs.append(np.stack(rows).reshape(n, -1))
    np.testing.assert_allclose(outputs[0], each.mean(0).numpy(), rtol=1e-5)
    if members > 1:
        np.testing.assert_allclose(outputs[1], each.std(0).numpy(), rtol=1e-3, atol=1e-3)
        assert outputs[1].min() > 0


class Restless(nn.Module):
    """Draws random numbers in evaluation mode, too."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, GRID.width)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.layer(inputs) + torch.rand_like(inputs[:, :1])


class Special(nn.Module):
    """Uses an operator that ONNX does not have."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, GRID.width)

    def forward(self, inputs: Tensor) -> Tensor:
        return torch.special.bessel_j1(self.layer(inputs))


def test_an_exported_model_of_other_numbers_is_not_kept(tmp_path: Path) -> None:
    trainer = trained(GRID)
    trainer.model = Restless()
    with pytest.raises(
        ExportError, match=r"\(pt2\) differs from the trained one by .* in field u, .*no file was written"
    ):
        export_model(tmp_path / "model", trainer, GRID, CARD)
    assert not (tmp_path / "model").exists()


def test_an_operator_that_onnx_lacks_is_named(tmp_path: Path) -> None:
    trainer = trained(GRID)
    trainer.model = Special()
    with pytest.raises(
        ExportError, match=r"the operator (aten|prims)\.\w*bessel_j1 of the model has no counterpart in ONNX"
    ):
        export_model(tmp_path, trainer, GRID, CARD, "onnx")
    assert list(tmp_path.iterdir()) == []


def test_the_card_of_an_ensemble(tmp_path: Path) -> None:
    trainer = trained(GRID, members=3, hidden=[8])
    card = Surrogate.load(export_model(tmp_path, trainer, GRID, CARD)).card
    assert (card["model"], card["members"]) == ("MLP", 3)
    assert card["trainable_parameters"] == 3 * (2 * 8 + 8 + 8 * 64 + 64)
