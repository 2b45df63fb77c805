"""The HTTP interface of a surrogate: its card, predictions as JSON or as numpy arrays, health and metrics."""

# Without postponed annotations: FastAPI reads the type of a question, which is made for the surrogate.

import asyncio
import io
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
from fastapi import Depends, FastAPI, HTTPException, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.security import HTTPBearer
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from pydantic import BaseModel

from penstock.service.batches import Batches
from penstock.service.gate import Gate
from penstock.service.questions import in_words, question_model
from penstock_server.surrogate import PredictError, Prediction, Surrogate

JSON = "application/json"
NPZ = "application/x-npz"
MOST_NUMBERS = {JSON: 2**22, NPZ: 2**24}
"""Numbers of one answer, by its type; one time step may always be asked for as arrays."""
SMALL = 2**16
"""Numbers of an answer that is written at once."""
MOST_BYTES = 4 * 2**20
"""Size of a request's body."""


class Answer(BaseModel):
    """Predicted fields.

    Attributes:
        times: times of the prediction.
        fields: values by name, nested lists (times, *shape, components); null for a number that is not finite.
        warnings: a line for each input outside the trained range, and one for numbers that are not finite.
        spread: of an ensemble, the standard deviation over its members, as `fields`; empty for one model.
    """

    times: list[float]
    fields: dict[str, Any]
    warnings: list[str]
    spread: dict[str, Any] = {}


class Refusal(BaseModel):
    """Why a request was refused, or failed.

    Attributes:
        detail: the reason.
    """

    detail: str


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
            f"the model predicts from the fields one time step before ([samples] window = {surrogate.card['window']}), "
            "which cannot be asked for over HTTP: use `penstock predict DIR --initial FILE.npz`, or Surrogate.predict in "
            "Python"
        )
    registry = CollectorRegistry()
    requests = Counter("penstock_service_requests", "Requests by answer", ["path", "code"], registry=registry)
    seconds = Histogram("penstock_service_seconds", "Time to answer a prediction", registry=registry)
    evaluations = Gauge("penstock_service_evaluations", "Evaluations of the model", registry=registry)
    batches: Batches

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        nonlocal batches
        batches = Batches(surrogate)
        evaluations.set_function(lambda: batches.evaluations)
        yield
        batches.close()

    app = FastAPI(
        title=f"Penstock: {surrogate.card['study']}",
        version=str(surrogate.card["format"]),
        docs_url=None,  # its scripts would come from another host
        redoc_url=None,
        redirect_slashes=False,
        lifespan=lifespan,
    )
    app.add_middleware(Gate, token=token, most_bytes=MOST_BYTES, requests=requests)
    Question = question_model(surrogate.parameters)  # noqa: N806 - a type
    # The schema names the token; `Gate` checks it.
    guarded = [] if token is None else [Depends(HTTPBearer(auto_error=False))]
    refusals: dict[int | str, dict[str, Any]] = {} if token is None else {401: {"model": Refusal}}

    @app.exception_handler(RequestValidationError)
    async def refuse(request: Request, error: RequestValidationError) -> JSONResponse:
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != JSON and not kind.endswith("+json"):
            return JSONResponse({"detail": f"Content-Type {kind[:80]!r}: expected {JSON}"}, 415)
        return JSONResponse({"detail": in_words(error.errors(), surrogate.parameters)}, 422)

    @app.get("/health", responses={503: {"model": Refusal}})
    async def health() -> dict[str, str]:
        """Whether questions are answered."""
        if not batches.alive:
            raise HTTPException(503, "the thread that evaluates the model has ended: start the service again")
        return {"status": "well"}

    @app.get("/metrics", response_class=PlainTextResponse)
    async def metrics() -> Response:
        """Prometheus metrics."""
        return PlainTextResponse(generate_latest(registry), media_type="text/plain; version=0.0.4")

    @app.get("/card", dependencies=guarded, responses=refusals)
    async def card() -> dict[str, Any]:
        """The model card: parameters and their ranges, fields, errors."""
        return surrogate.card

    @app.post(
        "/predict",
        dependencies=guarded,
        responses=refusals
        | {
            200: {"model": Answer, "content": {NPZ: {"schema": {"type": "string", "format": "binary"}}}},
            **{code: {"model": Refusal} for code in (400, 413, 415, 422, 500)},
        },
    )
    async def predict(question: Question, request: Request) -> Response:  # type: ignore[valid-type]
        """Predict the fields; as a numpy archive where the request accepts application/x-npz."""
        begun = time.monotonic()
        form = NPZ if NPZ in request.headers.get("accept", "") else JSON
        asked: dict[str, Any] = question.model_dump(by_alias=True)  # type: ignore[attr-defined]
        try:
            times = surrogate.times(asked["times"])
            warnings = surrogate.check(asked["parameters"], times)
        except PredictError as error:
            raise HTTPException(422, str(error)) from error
        numbers, most = len(times) * surrogate.width, MOST_NUMBERS[form]
        if numbers > most and not (form == NPZ and len(times) == 1):
            advice = "ask for fewer times" + (f", or with Accept: {NPZ}" if form == JSON else "")
            raise HTTPException(413, f"the answer would have {numbers} numbers, at most {most} are sent: {advice}")
        prediction = await asyncio.wrap_future(batches.ask(asked["parameters"], times))
        lost = sum(values.size - int(np.isfinite(values).sum()) for values in prediction.fields.values())
        if lost:
            warnings.append(f"{lost} of {numbers} predicted numbers are not finite: the inputs are too far outside")
        write = _npz if form == NPZ else _json
        # Others wait for the loop. For small answers a thread would cost more, as it takes the interpreter from the loop.
        small = numbers <= SMALL
        response = write(prediction, warnings) if small else await asyncio.to_thread(write, prediction, warnings)
        seconds.observe(time.monotonic() - begun)
        return response

    return app


def _json(prediction: Prediction, warnings: list[str]) -> Response:
    fields, spread = (
        {name: values.tolist() for name, values in arrays.items()} for arrays in (prediction.fields, prediction.spread)
    )
    answer = Answer(times=prediction.times, fields=fields, warnings=warnings, spread=spread)
    return Response(answer.model_dump_json(), media_type=JSON)


def _npz(prediction: Prediction, warnings: list[str]) -> Response:
    file = io.BytesIO()
    arrays: dict[str, Any] = {"times": np.array(prediction.times), **prediction.arrays()}
    np.savez(file, **arrays)
    return Response(file.getvalue(), media_type=NPZ, headers={"Penstock-Warnings": str(len(warnings))})
