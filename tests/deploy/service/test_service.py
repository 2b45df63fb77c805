"""The service answers as the surrogate does, together where questions come together, and refuses with the reason."""

from __future__ import annotations

import io
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from fastapi.testclient import TestClient

from penstock.service import Batches, make_app
from penstock_server.study import Batch, FieldSpec, ModelSection, SampleSpec, TrainingSection
from penstock_server.surrogate import PredictError, Surrogate
from penstock_server.surrogate.export import ModelCard, export_model
from penstock_server.training import Normaliser, Trainer

BOUNDS = {"speed": (1.0, 2.0), "width": (0.1, 0.3)}
POINT = {"speed": 1.5, "width": 0.2}
NPZ = {"Accept": "application/x-npz"}


def exported(folder: Path, window: int = 1) -> Surrogate:
    spec = SampleSpec(tuple(BOUNDS), (FieldSpec("U", 3, (4,)), FieldSpec("p", 1, (2, 3))), window=window)
    rng = np.random.default_rng(0)
    inputs = rng.uniform(0.5, 2.0, (40, window, spec.n_inputs)).astype(np.float32)
    targets = rng.normal(300.0, 20.0, (40, window, spec.width)).astype(np.float32)
    normaliser = Normaliser(spec)
    normaliser.update(inputs, targets)
    trainer = Trainer(spec, ModelSection.model_validate({"hidden": [16]}), TrainingSection(), normaliser, device="cpu")
    trainer.step(Batch(torch.from_numpy(inputs), torch.from_numpy(targets)))
    export_model(folder / "model", trainer, spec, ModelCard("wave", 7, BOUNDS))
    return Surrogate.load(folder)


@pytest.fixture(scope="module")
def surrogate(tmp_path_factory: pytest.TempPathFactory) -> Surrogate:
    return exported(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def client(surrogate: Surrogate) -> Iterator[TestClient]:
    with TestClient(make_app(surrogate)) as client:
        yield client


def test_an_answer_as_json_and_as_arrays(client: TestClient, surrogate: Surrogate) -> None:
    want = surrogate.predict(POINT, [1.0, 1.5])
    answer = client.post("/predict", json={"parameters": POINT, "times": [1.0, 1.5]})
    assert answer.status_code == 200
    body = answer.json()
    assert (body["times"], body["warnings"]) == ([1.0, 1.5], want.warnings)
    np.testing.assert_allclose(np.array(body["fields"]["U"], "f4"), want.fields["U"], rtol=1e-6)
    answer = client.post("/predict", json={"parameters": POINT, "times": [1.0, 1.5]}, headers=NPZ)
    with np.load(io.BytesIO(answer.content)) as file:
        np.testing.assert_array_equal(file["p"], want.fields["p"])


def test_a_point_outside_the_trained_range_is_answered_with_a_warning(client: TestClient) -> None:
    body = client.post("/predict", json={"parameters": {**POINT, "width": 5.0}}).json()
    assert "width = 5 lies outside the trained range" in body["warnings"][0]


@pytest.mark.parametrize(
    ("body", "code", "says"),
    [
        ({"parameters": {"speed": 1.5}}, 422, "parameter width is missing"),
        ({"parameters": {**POINT, "height": 1}}, 422, "no parameter 'height'"),
        ({"parameters": POINT, "times": []}, 422, "at least 1 item"),
        ({"parameters": POINT, "time": [1]}, 422, "Extra inputs"),
        ({"parameters": {**POINT, "speed": "fast"}}, 422, "valid number"),
        ([], 422, "dictionary"),
    ],
)
def test_a_damaged_question_is_refused_with_the_reason(client: TestClient, body: object, code: int, says: str) -> None:
    answer = client.post("/predict", json=body)
    assert (answer.status_code, says in answer.text) == (code, True), answer.text


def test_an_answer_that_is_too_large_is_refused(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.service.app.MOST_BYTES", 100)
    answer = client.post("/predict", json={"parameters": POINT, "times": [1.0, 2.0]})
    assert (answer.status_code, answer.json()["detail"]) == (
        413,
        "the answer would have 144 bytes, at most 100 are sent",
    )


def test_a_token_is_asked_for(surrogate: Surrogate) -> None:
    with TestClient(make_app(surrogate, "secret")) as client:
        assert client.get("/health").status_code == 200
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}):
            assert client.post("/predict", json={"parameters": POINT}, headers=headers).status_code == 401
            assert client.get("/card", headers=headers).status_code == 401
        good = {"Authorization": "Bearer secret"}
        assert client.get("/card", headers=good).json()["study"] == "wave"
        assert client.post("/predict", json={"parameters": POINT}, headers=good).status_code == 200


def test_metrics_count_answers(client: TestClient) -> None:
    client.post("/predict", json={"parameters": POINT})
    client.get("/nothing/here")
    text = client.get("/metrics").text
    assert 'penstock_service_requests_total{code="200",path="/predict"}' in text
    assert 'penstock_service_requests_total{code="404",path="other"}' in text


def test_questions_that_come_together_are_answered_together(surrogate: Surrogate) -> None:
    batches = Batches(surrogate)
    with ThreadPoolExecutor(8) as pool:
        points = [{"speed": 1.0 + i / 200, "width": 0.2} for i in range(200)]
        futures = list(pool.map(lambda point: batches.ask(point, [1.0]), points))
    answers = [future.result(60) for future in futures]
    batches.close()
    assert batches.evaluations < 200
    for point, answer in zip(points, answers, strict=True):
        np.testing.assert_allclose(answer.fields["U"], surrogate.predict(point, [1.0]).fields["U"], rtol=1e-5)


def test_one_question_that_fails_does_not_end_the_service(surrogate: Surrogate) -> None:
    batches = Batches(surrogate)
    with pytest.raises(KeyError):
        batches.ask({"speed": 1.0}, [1.0]).result(60)
    assert batches.ask(POINT, [1.0]).result(60).times == [1.0]
    batches.close()


def test_a_model_of_windows_has_no_service(tmp_path: Path) -> None:
    with pytest.raises(PredictError, match="cannot be asked for over HTTP"):
        make_app(exported(tmp_path, window=2))
