"""Who may see the page: everyone on this machine, or whoever has the token."""

from __future__ import annotations

import hmac
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from bokeh.server.auth_provider import AuthProvider

LOCAL = ("localhost", "127.0.0.1", "::1")


class Access(AuthProvider):  # type: ignore[misc]  # Bokeh's stubs are not used
    """Answers 403 to whoever may not see the page.

    The page and its WebSocket carry the token as `?token=...`. A browser that has been led here by another site, under
    a name of that site, names it in the headers Host and Origin.

    Args:
        token: None where the page is for this machine alone.
    """

    def __init__(self, token: str | None) -> None:
        self._token = token
        super().__init__()

    @property
    def get_user_async(self) -> Callable[[Any], Awaitable[Any]]:
        """The function that Bokeh calls before it answers any request for the page."""
        return self._check

    @property
    def login_url(self) -> str:
        """Where Bokeh would send strangers; `_check` has answered them before."""
        return "/"

    async def _check(self, handler: Any) -> Any:
        if reason := self._refusal(handler):
            handler.set_status(403)
            handler.set_header("Content-Type", "text/plain; charset=utf-8")
            handler.finish(f"{reason}\n")
            return None
        return "viewer"

    def _refusal(self, handler: Any) -> str:
        """Why a request is refused; "" where it is not."""
        host = handler.request.headers.get("Host", "")
        origin = handler.request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != host:
            return f"The page of another site ({origin}) may not ask here."
        if self._token is None:
            name = urlsplit(f"//{host}").hostname
            return "" if name in LOCAL else f"This page is for {' or '.join(LOCAL)}, not for {name}."
        given = handler.get_argument("token", "")
        if hmac.compare_digest(given.encode(), self._token.encode()):
            return ""
        return "The token is missing or wrong: use the whole address that `penstock watch` has printed."
