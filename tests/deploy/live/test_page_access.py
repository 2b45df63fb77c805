"""Who gets the page: this machine, or whoever has the token; nobody under the name of another site."""

from __future__ import annotations

import re
import subprocess
import urllib.error
import urllib.request
from pathlib import Path

import pytest
from command import penstock, started

from waiting import wait_for


def address_of(process: subprocess.Popen[str]) -> str:
    """The address that a page's command prints."""
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"live page: (\S+)", line):
            return found[1]
    raise AssertionError("the command has ended without an address")


def answer(url: str, **headers: str) -> tuple[int, str]:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers)) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


WEBSOCKET = {
    "Connection": "Upgrade",
    "Upgrade": "websocket",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==",
    "Sec-WebSocket-Protocol": "bokeh, token",
}


def test_another_address_than_this_machine_needs_the_token(tmp_path: Path) -> None:
    process = started("watch", tmp_path, "--host", "0.0.0.0", "--port", "0", PENSTOCK_WATCH_TOKEN="")
    url = address_of(process).replace("0.0.0.0", "127.0.0.1")
    plain, _, token = url.partition("?token=")
    assert len(token) >= 32
    code, page = answer(url)
    assert code == 200
    assert "Penstock" in page
    for wrong in (plain, f"{plain}?token=", f"{plain}?token={token[:-1]}", f"{plain}?token={token}x"):
        for path in ("", "ws", "autoload.js", "metadata"):
            code, text = answer(
                wrong.replace("/?", f"/{path}?") if "?" in wrong else wrong + path,
                **(WEBSOCKET if path == "ws" else {}),
            )
            assert (code, token in text) == (403, False), path
            assert "The token is missing or wrong" in text
    process.terminate()
    assert process.wait(60) == 0


def test_a_site_that_leads_a_browser_here_gets_nothing(tmp_path: Path) -> None:
    process = started("watch", tmp_path, "--port", "0", PENSTOCK_WATCH_TOKEN="")
    url = address_of(process)
    port = url.rstrip("/").rpartition(":")[2]
    assert answer(url)[0] == 200
    assert answer(url, Host="localhost:8080")[0] == 200  # a tunnel from another port
    assert answer(url, Host=f"attacker.example:{port}")[0] == 403  # a name that has come to mean 127.0.0.1
    origin = {**WEBSOCKET, "Origin": "http://attacker.example"}
    assert answer(f"{url}ws", **origin)[0] == 403
    tunnel = {**WEBSOCKET, "Origin": "http://localhost:8080", "Host": "localhost:8080"}
    assert answer(f"{url}ws", **tunnel)[0] != 403
    process.terminate()
    assert process.wait(60) == 0


def test_what_cannot_be_watched_is_said_in_a_line(tmp_path: Path) -> None:
    assert "there is no such folder" in penstock("watch", tmp_path / "none", code=1)
    (tmp_path / "letter.txt").write_text("no study")
    assert "is no run directory" in penstock("watch", tmp_path, code=2)


def test_a_port_that_is_taken_is_named_and_without_one_the_next_is_used(tmp_path: Path) -> None:
    first = started("watch", tmp_path, "--port", "0")
    port = address_of(first).rstrip("/").rpartition(":")[2]
    assert f"port {port} of 127.0.0.1 cannot be listened on" in penstock("watch", tmp_path, "--port", port, code=1)
    wait_for(lambda: first.poll() is None)


@pytest.mark.parametrize("token", ["secret of mine"])
def test_a_token_of_ones_own_holds_on_this_machine_too(tmp_path: Path, token: str) -> None:
    process = started("watch", tmp_path, "--port", "0", PENSTOCK_WATCH_TOKEN=token)
    url = address_of(process)
    assert answer(url)[0] == 200
    assert answer(url.partition("?")[0])[0] == 403
