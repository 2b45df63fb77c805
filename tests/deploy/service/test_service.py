"""The service answers as the surrogate does, and refuses with the reason."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from surrogates import POINT, exported, served

from penstock.service import make_app
from penstock.service.app import MOST_NUMBERS
from penstock_server.surrogate import PredictError, Surrogate

NPZ = {"Accept": "application/x-npz"}
QUESTION = {"parameters": POINT, "times": [1.0, 1.5]}


@pytest.fixture(scope="module")
def surrogate(tmp_path_factory: pytest.TempPathFactory) -> Surrogate:
    return exported(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def client(surrogate: Surrogate) -> Iterator[httpx.Client]:
    with served(make_app(surrogate)) as client:
        yield client


def test_an_answer_as_json_and_as_arrays(client: httpx.Client, surrogate: Surrogate) -> None:
    want = surrogate.predict(POINT, [1.0, 1.5])
    answer = client.post("/predict", json=QUESTION)
    assert answer.status_code == 200
    body = answer.json()
    assert (body["times"], body["warnings"]) == ([1.0, 1.5], want.warnings)
    np.testing.assert_allclose(np.array(body["fields"]["U"], "f4"), want.fields["U"], rtol=1e-6)
    answer = client.post("/predict", json=QUESTION, headers=NPZ)
    with np.load(io.BytesIO(answer.content)) as file:
        np.testing.assert_allclose(file["p"], want.fields["p"], rtol=1e-6)


def test_a_point_outside_the_trained_range_is_answered_with_a_warning(client: httpx.Client) -> None:
    body = client.post("/predict", json={"parameters": {**POINT, "width": 5.0}}).json()
    assert "width = 5 lies outside the trained range" in body["warnings"][0]


def test_numbers_that_are_not_finite_are_null_and_told(tmp_path: Path) -> None:
    surrogate = exported(tmp_path)
    program = surrogate._program
    surrogate._program = lambda inputs: program(inputs) * float("nan")  # type: ignore[assignment,no-untyped-call]
    with served(make_app(surrogate)) as client:
        body = client.post("/predict", json=QUESTION).json()
        assert body["fields"]["p"] == [[[[None]] * 3] * 2] * 2
        assert body["warnings"][-1].startswith("36 of 36 predicted numbers are not finite")
        answer = client.post("/predict", json=QUESTION, headers=NPZ)
        assert answer.headers["Penstock-Warnings"] == str(len(body["warnings"]))


def test_the_largest_numbers_are_answered(client: httpx.Client) -> None:
    body = {"parameters": {"speed": 1e30, "width": -1e30}, "times": [-1e30]}
    assert client.post("/predict", json=body).status_code == 200


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ({"parameters": {"speed": 1.5}}, "parameter width is missing: the model needs speed, width"),
        ({"parameters": {**POINT, "height": 1}}, "no parameter 'height': the model has speed, width"),
        ({"parameters": POINT, "times": []}, "times: List should have at least 1 item"),
        ({"parameters": POINT, "times": [1, "2"]}, "times.1: Input should be a valid number"),
        ({"parameters": POINT, "time": [1]}, "time: Extra inputs are not permitted"),
        ({"parameters": {**POINT, "speed": "fast"}}, "parameters.speed: Input should be a valid number"),
        ({"parameters": {**POINT, "speed": True}}, "parameters.speed: Input should be a valid number"),
        ({"parameters": {**POINT, "speed": float("nan")}}, "parameters.speed: Input should be a finite number"),
        ({"parameters": {**POINT, "speed": float("inf")}}, "parameters.speed: Input should be"),
        (
            {"parameters": {**POINT, "speed": 1e31}},
            "parameters.speed: Input should be less than or equal to 1000000000000000000000000000000",
        ),
        ({"parameters": {**POINT, "speed": 10**400}}, "parameters.speed"),
        ({"parameters": {f"{n}": 1 for n in range(1000)}}, "; and 997 more"),
        ([], "the body: Input should be a valid dictionary"),
        ("no", "the body: Input should be a valid dictionary"),
    ],
)
def test_a_damaged_question_is_refused_with_the_reason(client: httpx.Client, body: object, says: str) -> None:
    answer = client.post("/predict", content=json.dumps(body), headers={"Content-Type": "application/json"})
    assert (answer.status_code, says in answer.json()["detail"]) == (422, True), answer.text
    assert len(answer.content) < 1000


@pytest.mark.parametrize(
    ("content", "kind", "code", "says"),
    [
        (b"{parameters", "application/json", 422, "the body is no JSON: Expecting property name"),
        (b"", "application/json", 422, "the body: Field required"),
        (b"\xff\xff{", "application/json", 400, "error parsing the body"),
        (b"[" * 100_000, "application/json", 400, "error parsing the body"),
        (b"speed=1.5", "application/x-www-form-urlencoded", 415, "expected application/json"),
        (json.dumps(QUESTION).encode(), "text/plain", 415, "Content-Type 'text/plain': expected application/json"),
        (b" " * (4 * 2**20 + 1), "application/json", 413, "too large"),
    ],
)
def test_a_damaged_body_is_refused_with_the_reason(
    client: httpx.Client, content: bytes, kind: str, code: int, says: str
) -> None:
    answer = client.post("/predict", content=content, headers={"Content-Type": kind})
    assert (answer.status_code, says.lower() in answer.json()["detail"].lower()) == (code, True), answer.text


def test_a_body_of_unknown_length_is_limited_too(client: httpx.Client) -> None:
    pieces = (b" " * 2**20 for _ in range(6))
    answer = client.post("/predict", content=pieces, headers={"Content-Type": "application/json"})
    assert (answer.status_code, answer.json()["detail"]) == (
        413,
        "the body is too large: expected at most 4194304 bytes",
    )


@pytest.mark.parametrize(
    ("method", "path", "code"),
    [("GET", "/predict", 405), ("DELETE", "/card", 405), ("POST", "/health", 405), ("GET", "/docs", 404)],
)
def test_wrong_methods_and_paths(client: httpx.Client, method: str, path: str, code: int) -> None:
    answer = client.request(method, path)
    assert answer.status_code == code
    assert answer.json()["detail"] in ("Method Not Allowed", "Not Found")
    assert (code == 405) == ("allow" in answer.headers)


@pytest.mark.parametrize(("headers", "kind"), [({}, "application/json"), (NPZ, "application/x-npz")])
def test_an_answer_that_is_too_large_is_refused(
    client: httpx.Client, monkeypatch: pytest.MonkeyPatch, headers: dict[str, str], kind: str
) -> None:
    monkeypatch.setitem(MOST_NUMBERS, kind, 20)
    answer = client.post("/predict", json=QUESTION, headers=headers)
    assert answer.status_code == 413
    assert answer.json()["detail"].startswith("the answer would have 36 numbers, at most 20 are sent: ask for fewer")


def test_a_token_is_asked_for(surrogate: Surrogate) -> None:
    with served(make_app(surrogate, "secret")) as client:
        assert client.get("/health").status_code == 200
        for headers in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": "secret"}):
            for answer in (
                client.post("/predict", json=QUESTION, headers=headers),
                client.post("/predict", content=b"{", headers=headers),  # not even read
                client.get("/card", headers=headers),
                client.get("/elsewhere", headers=headers),
            ):
                assert answer.status_code == 401
                assert "Authorization: Bearer TOKEN" in answer.json()["detail"]
        good = {"Authorization": "Bearer secret"}
        assert client.get("/card", headers=good).json()["study"] == "wave"
        assert client.post("/predict", json=QUESTION, headers=good).status_code == 200
        schema = client.get("/openapi.json").json()
        assert schema["paths"]["/predict"]["post"]["security"] == [{"HTTPBearer": []}]
        assert "security" not in schema["paths"]["/health"]["get"]


def test_metrics_count_answers(client: httpx.Client) -> None:
    client.post("/predict", json=QUESTION)
    client.get("/nothing/here")
    text = client.get("/metrics").text
    assert 'penstock_service_requests_total{code="200",path="/predict"}' in text
    assert 'penstock_service_requests_total{code="404",path="other"}' in text
    assert "penstock_service_evaluations" in text


def test_a_model_that_fails_is_told_in_a_line_and_logged(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    surrogate = exported(tmp_path)

    def fail(*_: Any) -> None:
        raise RuntimeError("mat1 and mat2\nshapes")

    surrogate._program = fail  # type: ignore[assignment]
    with served(make_app(surrogate)) as client, caplog.at_level(logging.ERROR):
        answer = client.post("/predict", json=QUESTION)
        assert answer.status_code == 500
        assert answer.json()["detail"] == (
            "the service failed (RuntimeError: mat1 and mat2 shapes); its log has the traceback"
        )
        assert client.get("/health").status_code == 200
        text = client.get("/metrics").text
    assert 'penstock_service_requests_total{code="500",path="/predict"} 1.0' in text
    record = next(r for r in caplog.records if r.name == "penstock.service")
    assert record.exc_info is not None


def test_a_model_of_windows_has_no_service(tmp_path: Path) -> None:
    with pytest.raises(PredictError, match=r"window = 2\), which cannot be asked for over HTTP: use `penstock predict"):
        make_app(exported(tmp_path, window=2))
