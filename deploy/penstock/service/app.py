"""The HTTP interface of a surrogate: its card, predictions as JSON or as numpy arrays, health and metrics."""

from __future__ import annotations

import asyncio
import hmac
import io
import time
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

import numpy as np
from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from pydantic import BaseModel, ConfigDict, Field

from penstock.service.batches import Batches
from penstock_server.surrogate import PredictError, Prediction, Surrogate

NPZ = "application/x-npz"
MOST_BYTES = 2**28
"""Size of an answer's values."""


class Question(BaseModel):
    """A point of the parameter space, and times.

    Attributes:
        parameters: value of every parameter.
        times: time steps, or times with [samples] time = "physical"; left out: the last one trained on.
    """

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False)

    parameters: dict[str, float]
    times: Annotated[list[float], Field(min_length=1, max_length=100_000)] | None = None


class Answer(BaseModel):
    """Predicted fields.

    Attributes:
        times: times of the prediction.
        fields: values by name, nested lists (times, *shape, components).
        warnings: a line for each input outside the trained range.
    """

    times: list[float]
    fields: dict[str, Any]
    warnings: list[str]


class Refusal(BaseModel):
    """Why a request was refused.

    Attributes:
        detail: the reason.
    """

    detail: str | list[Any]


def make_app(surrogate: Surrogate, token: str | None = None) -> FastAPI:
    """Make the service of a surrogate.

    Args:
        surrogate: of single time steps (window = 1).
        token: that requests must carry as "Authorization: Bearer TOKEN"; None: everyone may ask.

    Returns:
        The application, for an ASGI server.

    Raises:
        PredictError: the model needs a state before, which a question cannot carry.
    """
    if surrogate.card["window"] > 1:
        raise PredictError(
            "the model predicts from the fields one time step before, which cannot be asked for over HTTP"
        )
    batches = Batches(surrogate)
    registry = CollectorRegistry()
    requests = Counter("penstock_service_requests", "Requests by answer", ["path", "code"], registry=registry)
    seconds = Histogram("penstock_service_seconds", "Time to answer a prediction", registry=registry)
    row_bytes = 4 * sum(int(np.prod(f["shape"])) * int(f["components"]) for f in surrogate.card["fields"])

    def allowed(authorization: Annotated[str | None, Header()] = None) -> None:
        if token is not None and not hmac.compare_digest((authorization or "").encode(), f"Bearer {token}".encode()):
            raise HTTPException(401, "expected the header Authorization: Bearer TOKEN", {"WWW-Authenticate": "Bearer"})

    app = FastAPI(title=f"Penstock: {surrogate.card['study']}", version=str(surrogate.card["format"]))
    app.router.on_shutdown.append(batches.close)

    @app.middleware("http")
    async def count(request: Request, answer: Callable[[Request], Awaitable[Response]]) -> Response:
        response = await answer(request)
        known = request.url.path in ("/predict", "/card", "/health", "/metrics")
        requests.labels(request.url.path if known else "other", response.status_code).inc()
        return response

    @app.get("/health")
    def health() -> dict[str, str]:
        """Whether the service answers."""
        return {"status": "well"}

    @app.get("/metrics", response_class=Response)
    def metrics() -> Response:
        """Prometheus metrics."""
        return Response(generate_latest(registry), media_type="text/plain; version=0.0.4")

    @app.get("/card", dependencies=[Depends(allowed)], responses={401: {"model": Refusal}})
    def card() -> dict[str, Any]:
        """The model card: parameters and their ranges, fields, errors."""
        return surrogate.card

    @app.post(
        "/predict",
        dependencies=[Depends(allowed)],
        responses={
            200: {"model": Answer, "content": {NPZ: {}}},
            401: {"model": Refusal},
            413: {"model": Refusal},
            422: {"model": Refusal},
        },
    )
    async def predict(question: Question, accept: Annotated[str, Header()] = "") -> Response:
        """Predict the fields; as a numpy archive where the request accepts application/x-npz."""
        begun = time.monotonic()
        try:
            times = surrogate.times(question.times)
            warnings = surrogate.check(question.parameters, times)
        except PredictError as error:
            raise HTTPException(422, str(error)) from error
        if len(times) * row_bytes > MOST_BYTES:
            raise HTTPException(
                413, f"the answer would have {len(times) * row_bytes} bytes, at most {MOST_BYTES} are sent"
            )
        prediction = await asyncio.wrap_future(batches.ask(question.parameters, times))
        seconds.observe(time.monotonic() - begun)
        if NPZ in accept:
            return Response(_npz(prediction), media_type=NPZ, headers={"Penstock-Warnings": str(len(warnings))})
        fields = {name: values.tolist() for name, values in prediction.fields.items()}
        return Response(
            Answer(times=prediction.times, fields=fields, warnings=warnings).model_dump_json(),
            media_type="application/json",
        )

    return app


def _npz(prediction: Prediction) -> bytes:
    file = io.BytesIO()
    arrays: dict[str, Any] = {"times": np.array(prediction.times), **prediction.fields}
    np.savez(file, **arrays)
    return file.getvalue()
