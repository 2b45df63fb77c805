"""What happens to each request around the application: the token, the size of its body, a count, and a failure's end."""

from __future__ import annotations

import hmac
import logging

from prometheus_client import Counter
from starlette.exceptions import HTTPException
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

OPEN = ("/health", "/metrics", "/openapi.json")
"""Paths that need no token: monitoring asks for them, and they tell nothing of the model's numbers."""
COUNTED = (*OPEN, "/card", "/predict")
"""Paths that are counted by name; a stranger cannot add further ones."""

_log = logging.getLogger("penstock.service")


class Gate:
    """ASGI middleware around the application.

    Args:
        app: the application.
        token: that requests must carry as "Authorization: Bearer TOKEN"; None: everyone may ask.
        most_bytes: size of a request's body.
        requests: counts answers by path and code.
    """

    def __init__(self, app: ASGIApp, *, token: str | None, most_bytes: int, requests: Counter) -> None:
        self._app, self._most_bytes, self._requests = app, most_bytes, requests
        self._expected = None if token is None else f"Bearer {token}".encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        path = scope["path"]
        code = received = 0

        async def limited() -> Message:
            nonlocal received
            message = await receive()
            received += len(message.get("body", b""))
            if received > self._most_bytes:
                raise self._too_large()  # FastAPI, which reads the body, answers with it
            return message

        async def noted(message: Message) -> None:
            nonlocal code
            if message["type"] == "http.response.start":
                code = message["status"]
            await send(message)

        try:
            if not self._admitted(scope):
                await _NO_TOKEN(scope, receive, noted)
            elif int(_header(scope, b"content-length") or 0) > self._most_bytes:
                refused = self._too_large()
                await JSONResponse({"detail": refused.detail}, refused.status_code)(scope, receive, noted)
            else:
                await self._app(scope, limited, noted)
        except Exception as error:
            if code:  # the answer has begun: uvicorn ends the connection, and logs why
                raise
            _log.exception("%s %s failed", scope["method"], path)
            words = " ".join(f"{type(error).__name__}: {error}".split())[:300]
            refusal = JSONResponse({"detail": f"the service failed ({words}); its log has the traceback"}, 500)
            await refusal(scope, receive, noted)
        finally:
            self._requests.labels(path if path in COUNTED else "other", code or 500).inc()

    def _admitted(self, scope: Scope) -> bool:
        if self._expected is None or scope["path"] in OPEN:
            return True
        return hmac.compare_digest(_header(scope, b"authorization"), self._expected)

    def _too_large(self) -> HTTPException:
        return HTTPException(413, f"the body is too large: expected at most {self._most_bytes} bytes")


def _header(scope: Scope, name: bytes) -> bytes:
    """The value of a request's header; empty where there is none."""
    value: bytes = next((value for key, value in scope["headers"] if key == name), b"")
    return value


_NO_TOKEN = JSONResponse(
    {"detail": "expected the header Authorization: Bearer TOKEN, with the token of this service"},
    401,
    {"WWW-Authenticate": "Bearer"},
)
