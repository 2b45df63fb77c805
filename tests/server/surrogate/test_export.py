import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from penstock_server.study import Batch, FieldSpec, ModelSection, SampleSpec, TrainingSection
from penstock_server.surrogate import Surrogate
from penstock_server.surrogate.export import ExportError, ModelCard, export_model
from penstock_server.surrogate.predict import PredictError
from penstock_server.training import Normaliser, Trainer
from penstock_server.validation import ValidationResult, ValidationStore, evaluate

FIELDS = (FieldSpec("U", 3, (4,)), FieldSpec("p", 1, (2, 3)))
SPEC = SampleSpec(("velocity", "viscosity"), FIELDS)
WINDOWS = SampleSpec(("velocity", "viscosity"), FIELDS, window=2)
BOUNDS = {"velocity": (1.0, 2.0), "viscosity": (0.005, 0.02)}
POINT = {"velocity": 1.3, "viscosity": 0.01}


def trained(spec: SampleSpec) -> tuple[Trainer, ValidationResult]:
    rng = np.random.default_rng(0)
    parameters = rng.uniform(*np.array(list(BOUNDS.values())).T, (40, 1, 2)).repeat(spec.window, axis=1)
    time = rng.integers(0, 50, (40, 1, 1)) + np.arange(spec.window)[None, :, None]
    inputs = np.concatenate([parameters, time], axis=2).astype(np.float32)
    targets = rng.normal(300.0, 20.0, (40, spec.window, spec.width)).astype(np.float32)
    normaliser = Normaliser(spec)
    normaliser.update(inputs, targets)
    model = ModelSection.model_validate({"hidden": [16]})
    trainer = Trainer(spec, model, TrainingSection(), normaliser, device="cpu")
    for _ in range(5):
        trainer.step(Batch(torch.from_numpy(inputs), torch.from_numpy(targets)))
    store = ValidationStore(spec)
    for step in range(spec.window):
        store.add(0, step, inputs[0, step], targets[0, step])
    return trainer, evaluate(store, trainer)


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Trainer, ValidationResult]:
    trainer, errors = trained(SPEC)
    run = tmp_path_factory.mktemp("run")
    export_model(run / "model", trainer, SPEC, ModelCard("cavity", 7, BOUNDS, validation=errors))
    return run, trainer, errors


Exported = tuple[Path, Trainer, ValidationResult]


@pytest.mark.parametrize("number", [1, 2, 7])
def test_the_program_answers_as_the_trainer_does_for_any_batch_size(exported: Exported, number: int) -> None:
    run, trainer, _ = exported
    times = list(np.linspace(1, 40, number))
    answer = Surrogate.load(run).predict(POINT, times)
    rows = trainer.predict(torch.tensor([[1.3, 0.01, t] for t in times]))
    want = {name: values.numpy() for name, values in SPEC.split(rows).items()}
    assert answer.warnings == []
    assert answer.times == times
    assert {k: v.shape for k, v in answer.fields.items()} == {"U": (number, 4, 3), "p": (number, 2, 3, 1)}
    for name in want:
        np.testing.assert_allclose(answer.fields[name], want[name], rtol=1e-5)


def test_the_card_says_what_the_model_is(exported: Exported) -> None:
    run, trainer, errors = exported
    card = json.loads((run / "model" / "card.json").read_text())
    assert card["study"] == "cavity"
    assert card["seed"] == 7
    assert card["batches"] == 5
    assert card["model"] == "MLP"
    assert card["trainable_parameters"] == 3 * 16 + 16 + 16 * 18 + 18
    assert card["parameters"]["viscosity"]["bounds"] == [0.005, 0.02]
    low, high = card["parameters"]["velocity"]["trained"]
    assert 1.0 <= low < high <= 2.0
    assert card["time"] == {"kind": "step", "trained": [float(v) for v in trainer_range(trainer)]}
    assert card["fields"][1] == {"name": "p", "components": 1, "shape": [2, 3], "offset": 12, "reference": 0.0}
    assert card["normalisation"] == {"inputs": True, "targets": True, "inside_program": True}
    assert card["validation"]["relative_l2"] == errors.relative_l2
    assert card["validation"]["fields"]["U"]["mse"] == errors.errors.fields["U"]["mse"]
    assert card["versions"]["torch"] == torch.__version__
    assert {"penstock", "python"} <= set(card["versions"])


def trainer_range(trainer: Trainer) -> tuple[float, float]:
    low, high = trainer.normaliser.input_range()
    return low[2], high[2]


def test_outside_the_trained_range_there_are_warnings(exported: Exported) -> None:
    surrogate = Surrogate.load(exported[0])
    answer = surrogate.predict({"velocity": 5.0, "viscosity": 0.005}, [10, 200])
    assert len(answer.warnings) == 2
    assert answer.warnings[0] == "velocity = 5 lies outside the trained range [1, 2]"
    assert answer.warnings[1].startswith("time = 200 lies outside the trained range [")
    last = surrogate.card["time"]["trained"][1]
    assert surrogate.predict(POINT).times == [last]


@pytest.mark.parametrize(
    ("parameters", "kwargs", "message"),
    [
        ({"velocity": 1.0}, {}, "parameter viscosity is missing: the model needs velocity, viscosity"),
        ({**POINT, "nu": 1.0}, {}, "no parameter 'nu': the model has velocity, viscosity"),
        ({**POINT, "velocity": float("nan")}, {}, "velocity = nan: expected a finite number"),
        (POINT, {"times": []}, "times is empty"),
        (POINT, {"times": [1], "initial": {}}, r"takes no initial fields: it predicts each time alone \(window = 1\)"),
    ],
)
def test_questions_that_cannot_be_answered(exported: Exported, parameters: dict, kwargs: dict, message: str) -> None:
    with pytest.raises(PredictError, match=message):
        Surrogate.load(exported[0]).predict(parameters, **kwargs)


def test_a_reference_is_taken_from_the_initial_state_and_added_to_the_prediction(tmp_path: Path) -> None:
    u, p = FIELDS
    spec = SampleSpec(WINDOWS.parameters, (u, FieldSpec(p.name, p.components, p.shape, 101325.0)), window=2)
    trainer, _ = trained(spec)
    surrogate = Surrogate.load(export_model(tmp_path, trainer, spec, ModelCard("cavity", 7, BOUNDS)))
    state = torch.full((1, spec.width), 310.0)
    initial = {"U": np.full((4, 3), 310.0), "p": np.full((2, 3, 1), 310.0 + 101325.0)}
    answer = surrogate.predict(POINT, [10], initial=initial)
    want = trainer.predict(torch.tensor([[1.3, 0.01, 10.0]]), state)[0].numpy()
    assert (answer.fields["U"].dtype, answer.fields["p"].dtype) == (np.float32, np.float64)
    np.testing.assert_allclose(answer.fields["U"].reshape(-1), want[:12], rtol=1e-5)
    np.testing.assert_allclose(answer.fields["p"].reshape(-1) - 101325.0, want[12:], rtol=1e-5)


def test_a_windowed_surrogate_rolls_out_from_a_state(tmp_path: Path) -> None:
    trainer, _ = trained(WINDOWS)
    surrogate = Surrogate.load(export_model(tmp_path, trainer, WINDOWS, ModelCard("cavity", 7, BOUNDS)))
    state = torch.full((1, WINDOWS.width), 310.0)
    initial = {k: v[0].numpy() for k, v in WINDOWS.split(state).items()}
    answer = surrogate.predict(POINT, [10, 11, 12], initial=initial)
    for i, time in enumerate((10, 11, 12)):
        state = trainer.predict(torch.tensor([[1.3, 0.01, float(time)]]), state)
        np.testing.assert_allclose(answer.fields["p"][i].reshape(-1), state[0, 12:].numpy(), rtol=1e-5)
    with pytest.raises(PredictError, match="needs the fields one time step before"):
        surrogate.predict(POINT, [10])
    with pytest.raises(PredictError, match=r"the initial field p \(2, 3, 1\) is missing"):
        surrogate.predict(POINT, [10], initial={"U": initial["U"]})
    with pytest.raises(PredictError, match=r"the initial field U has shape \(3,\), expected \(4, 3\)"):
        surrogate.predict(POINT, [10], initial={**initial, "U": np.zeros(3)})


class Branches(nn.Module):
    """What torch.export cannot trace: control flow that depends on values."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(3, SPEC.width)

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return self.layer(inputs) if inputs.sum() > 0 else self.layer(-inputs)


def test_a_model_that_cannot_be_exported_leaves_the_last_export(tmp_path: Path) -> None:
    trainer, _ = trained(SPEC)
    export_model(tmp_path, trainer, SPEC, ModelCard("cavity", 7, BOUNDS))
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    assert sorted(before) == ["card.json", "surrogate.pt2"]
    trainer.model = Branches()
    with pytest.raises(
        ExportError, match=r"torch\.export cannot trace Branches\.forward for any batch size: .*control flow"
    ):
        export_model(tmp_path, trainer, SPEC, ModelCard("cavity", 7, BOUNDS))
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before


def test_a_damaged_or_missing_export(tmp_path: Path, exported: Exported) -> None:
    with pytest.raises(PredictError, match=r"no exported model in .*: run `penstock export"):
        Surrogate.load(tmp_path)
    model = exported[0] / "model"
    (tmp_path / "card.json").write_bytes((model / "card.json").read_bytes())
    (tmp_path / "surrogate.pt2").write_bytes((model / "surrogate.pt2").read_bytes()[:500])
    with pytest.raises(PredictError, match=r"surrogate\.pt2 is missing or damaged: export it again"):
        Surrogate.load(tmp_path)
    (tmp_path / "card.json").write_text('{"format": 99}')
    with pytest.raises(PredictError, match="has format 99, expected 2"):
        Surrogate.load(tmp_path)


def test_predicting_imports_nothing_of_the_training_server(exported: Exported) -> None:
    code = (
        "import sys\nfrom pathlib import Path\nfrom penstock_server.surrogate.predict import Surrogate\n"
        f"answer = Surrogate.load(Path({str(exported[0])!r})).predict({POINT!r}, [3])\n"
        "assert answer.fields['U'].shape == (1, 4, 3)\n"
        "heavy = ('ray', 'pydantic', 'h5py', 'matplotlib', 'prometheus_client', 'structlog', 'scipy')\n"
        "print([m for m in heavy if m in sys.modules])\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


class Double(nn.Module):
    """Two time steps from the two before: four times as much."""

    def __init__(self) -> None:
        super().__init__()
        self.factor = nn.Parameter(torch.tensor(4.0))

    def forward(self, inputs: torch.Tensor, state: torch.Tensor) -> torch.Tensor:
        return self.factor * state + 0.0 * inputs[:, :1]


def test_a_model_of_bundles_rolls_out_whatever_number_of_times_is_asked(tmp_path: Path) -> None:
    spec = SampleSpec(("velocity", "viscosity"), FIELDS, window=4, bundle=2)
    normaliser = Normaliser(spec, inputs=False, targets=False)
    trainer = Trainer(spec, ModelSection(), TrainingSection(), normaliser, device="cpu")
    trainer.model = Double()
    export_model(tmp_path, trainer, spec, ModelCard("cavity", 7, BOUNDS))
    one = {f.name: np.ones((*f.shape, f.components), np.float32) for f in FIELDS}
    before = {name: np.stack([values, 2 * values]) for name, values in one.items()}
    prediction = Surrogate.load(tmp_path).predict({"velocity": 1.0, "viscosity": 0.1}, [2, 3, 4], initial=before)
    for name, values in prediction.fields.items():
        assert values.shape == (3, *one[name].shape)
        for at, factor in enumerate((4, 8, 16)):
            np.testing.assert_array_equal(values[at], factor * one[name])
    with pytest.raises(PredictError, match=r"expected \(2, "):
        Surrogate.load(tmp_path).predict({"velocity": 1.0, "viscosity": 0.1}, [2], initial=one)
