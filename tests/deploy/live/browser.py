"""A real Chromium that looks at the live page, and notes whatever a user should not see."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit

import numpy as np
from PIL import Image
from playwright.sync_api import Browser, sync_playwright

from waiting import PATIENCE

READY = "() => window.Bokeh !== undefined && Bokeh.documents.length > 0 && Bokeh.documents[0].is_idle"
LENGTH = "([source, column]) => Bokeh.documents[0].get_model_by_name(source)?.data[column]?.length ?? 0"


class Look:
    """An open page.

    Args:
        browser: that opens it.
        url: the page's address.
        width: of the window, in pixels.

    Attributes:
        wrong: errors on the console, failed requests, and requests to other hosts.
    """

    def __init__(self, browser: Browser, url: str, width: int) -> None:
        self.wrong: list[str] = []
        self._host, self.width = urlsplit(url).netloc, width
        self.page = browser.new_page(viewport={"width": width, "height": 900})
        self.page.set_default_timeout(1000 * PATIENCE)
        self.page.on("console", self._note_message)
        self.page.on("pageerror", lambda error: self.wrong.append(f"error: {error}"))
        self.page.on("request", lambda request: self._note_address(request.url))
        self.page.on("websocket", lambda socket: self._note_address(socket.url))
        self.page.on("response", lambda response: response.ok or self.wrong.append(f"{response.status} {response.url}"))
        self.page.goto(url)
        self.page.wait_for_function(READY)

    def length(self, source: str, column: str) -> int:
        """How many values a column of a source has in the browser."""
        return int(self.page.evaluate(LENGTH, [source, column]))

    def wait_for_length(self, source: str, column: str, more_than: int) -> int:
        """Wait until a column in the browser has more values than a number; return how many it has."""
        self.page.wait_for_function(f"(asked) => ({LENGTH})(asked) > asked[2]", arg=[source, column, more_than])
        return self.length(source, column)

    def values(self, source: str, column: str) -> list[Any]:
        """The values of a column in the browser."""
        script = "([source, column]) => Array.from(Bokeh.documents[0].get_model_by_name(source).data[column])"
        return list(self.page.evaluate(script, [source, column]))

    def colours(self, place: str) -> int:
        """How many colours a part of the page has, seen from afar."""
        with Image.open(io.BytesIO(self.page.locator(place).screenshot())) as picture:
            pixels = np.asarray(picture.convert("RGB")).reshape(-1, 3)
        return len(np.unique(pixels[::7] // 16, axis=0))

    def hangs_over(self) -> int:
        """By how many pixels the page is wider than the window."""
        return int(self.page.evaluate("() => document.documentElement.scrollWidth")) - self.width

    def header(self) -> str:
        """The text at the head of the page."""
        return str(self.page.evaluate("() => Bokeh.documents[0].get_model_by_name('header').text"))

    def _note_message(self, message: Any) -> None:
        if message.type in ("error", "warning"):
            self.wrong.append(f"{message.type}: {message.text}")

    def _note_address(self, url: str) -> None:
        if urlsplit(url).scheme not in ("data", "blob") and urlsplit(url).netloc != self._host:
            self.wrong.append(f"another host: {url}")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Debian's Chromium without a window."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        yield browser
        browser.close()
