"""libpenstock says why it cannot connect to a server or begin a simulation."""

from __future__ import annotations

import socket
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from stream_program import NO_CONNECTION, REFUSED, U, run

from live_server import live_server
from penstock_client import ConnectError
from penstock_client.connect_file import ConnectInfo, read_connect_file
from penstock_server.network import open_keys
from penstock_server.network.keys import DEFAULT


def connect_file(path: Path, **changes: Any) -> Path:
    keys = open_keys(path.parent)
    client = keys.workers[DEFAULT]
    info = ConnectInfo("a study", 1, "tcp://127.0.0.1:9", keys.server_public, client.public, client.secret)
    replace(info, **changes).write(path)
    return path


def test_no_server_is_named(programs: Path) -> None:
    code, text, _ = run(programs)
    assert code == NO_CONNECTION
    assert text == "connect: no server given: set PENSTOCK_CONNECT to the connect.json in the study's run directory"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "something that is not a JSON object"),
        ("[]", "something that is not a JSON object"),
        ("{}", 'something that is not "name": value'),
        ('{"study": "s"}', "not all of study, incarnation, control and the three keys"),
        ('{"study": "s", "incarnation": "1"}', "incarnation, which should be an integer"),
        ('{"study": "s", "incarnation": 1.5}', "incarnation, which should be an integer"),
        ('{"study": "s", "incarnation": -1}', "incarnation, which should be an integer"),
        ('{"study": "s", "incarnation": 4294967296}', "incarnation, which should be an integer"),
        ('{"study": ["s"]}', "study, which should be a string"),
        ('{"study": "s", "colour": "red"}', "a name that this version does not know"),
        ('{"study": "s"', "a missing , or }"),
        ('{"study": "s', "a string without an end"),
        ('{"study": "\\x41"}', "an unknown escape in a string"),
        ('{"study": "\\ud800"}', "half a surrogate pair"),
        ('{"study": "\\udc00"}', "half a surrogate pair"),
        ('{"study": "s", "incarnation": 01}', "incarnation, which should be an integer"),
        ('{"study": "' + 300 * "s" + '"}', "a string that is too long"),
        ('{"server_public_key": "' + 41 * "k" + '"}', "a string that is too long"),
    ],
)
def test_a_connect_file_that_is_none(programs: Path, tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "connect.json"
    path.write_text(text)
    code, said, _ = run(programs, PENSTOCK_CONNECT=str(path))
    assert code == NO_CONNECTION
    assert f"{path} is not a connect.json of this version of Penstock: it has {problem};" in said


def test_a_connect_file_that_is_too_long(programs: Path, tmp_path: Path) -> None:
    path = connect_file(tmp_path / "connect.json")
    path.write_text(path.read_text() + 65536 * " ")
    code, said, _ = run(programs, PENSTOCK_CONNECT=str(path))
    assert code == NO_CONNECTION
    assert said.endswith("it has more than 65536 bytes")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660])
def test_a_connect_file_that_others_may_read(programs: Path, tmp_path: Path, mode: int) -> None:
    path = connect_file(tmp_path / "connect.json")
    path.chmod(mode)
    text = f"{path} holds a secret key and may be read by other users (mode {mode:o}): run `chmod 600` on it"
    code, said, _ = run(programs, PENSTOCK_CONNECT=str(path))
    assert code == NO_CONNECTION
    assert text in said
    with pytest.raises(ConnectError) as caught:
        read_connect_file(path)
    assert text in str(caught.value)


def test_a_study_name_with_escapes_is_read(programs: Path, tmp_path: Path) -> None:
    path = connect_file(tmp_path / "connect.json", study='"Rohrströmung" \\ 𝜈\n')
    assert "\\ud835" in path.read_text()
    code, said, _ = run(programs, PENSTOCK_CONNECT=str(path))
    assert (code, said.split(" at ")[0]) == (NO_CONNECTION, "connect: no answer from the server")


def test_nobody_listens(programs: Path, tmp_path: Path) -> None:
    path = connect_file(tmp_path / "connect.json")
    code, said, seconds = run(programs, PENSTOCK_CONNECT=str(path))
    assert code == NO_CONNECTION
    assert said == (
        "connect: no answer from the server at tcp://127.0.0.1:9 within 1 s: is the study running, and can this machine "
        "reach that address?"
    )
    assert seconds < 5


def test_somebody_else_listens(programs: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:

        def answer() -> None:
            connection, _ = other.accept()
            with connection:
                connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n")

        thread = threading.Thread(target=answer, daemon=True)
        thread.start()
        path = connect_file(tmp_path / "connect.json", control=f"tcp://127.0.0.1:{other.getsockname()[1]}")
        code, said, _ = run(programs, PENSTOCK_CONNECT=str(path))
        thread.join(10)
    assert code == NO_CONNECTION
    assert said.startswith("connect: no answer from the server")


def test_keys_of_another_study(programs: Path, tmp_path: Path) -> None:
    with live_server(tmp_path / "run", U) as server:
        stranger = open_keys(tmp_path)
        client = stranger.workers[DEFAULT]
        info = read_connect_file(server.connect)
        path = tmp_path / "connect.json"
        replace(info, client_public_key=client.public, client_secret_key=client.secret).write(path)
        code, said, _ = run(programs, PENSTOCK_CONNECT=str(path))
        assert code == NO_CONNECTION
        assert said.endswith(
            "the server rejects the keys in connect.json: it belongs to another study, take the one in this study's run directory"
        )
        replace(info, server_public_key=stranger.server_public).write(path)
        code, said, _ = run(programs, PENSTOCK_CONNECT=str(path))
        assert code == NO_CONNECTION
        assert said.endswith("the encrypted handshake fails: is connect.json the current one?")


def test_an_earlier_incarnation(programs: Path, tmp_path: Path) -> None:
    with live_server(tmp_path / "run", U) as server:
        path = tmp_path / "connect.json"
        info = read_connect_file(server.connect)
        replace(info, incarnation=info.incarnation + 1).write(path)
        code, said, _ = run(programs, PENSTOCK_CONNECT=str(path))
    assert code == REFUSED
    assert said.endswith("read connect.json again (refused: incarnation)")


@pytest.mark.parametrize("name", ["PENSTOCK_SIMULATION", "PENSTOCK_ATTEMPT"])
@pytest.mark.parametrize("value", ["", "one", "-1", "1e3", "99999999999999999999"])
def test_variables_that_are_not_set(programs: Path, tmp_path: Path, name: str, value: str) -> None:
    with live_server(tmp_path / "run", U) as server:
        code, said, _ = run(programs, **{"PENSTOCK_CONNECT": str(server.connect), name: value})
    assert code == 1
    assert said.startswith(f"begin: {name} is {value}: a Penstock worker sets it to a number")
