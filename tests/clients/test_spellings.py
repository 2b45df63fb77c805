"""Natural ways to write fields and time steps work, or are refused with a text that says what to write."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from live_server import live_server
from penstock_client import Client, Field, FieldError, stream_solver
from penstock_client.piece import check_fields
from waiting import busy

RESERVED = (
    r"expected a name other than self, step, time, offset, indices, which are arguments of Simulation.send; rename"
)


def test_a_shape_may_be_a_number_or_a_list_and_a_dtype_a_type() -> None:
    expected = Field(shape=(8,), dtype="float64")
    sizes: list[Any] = [8, [8], np.int64(8), np.array([8])]
    types: list[Any] = ["float64", np.float64, np.dtype("float64"), float, "<f8"]
    assert all(Field(shape=size, dtype=dtype) == expected for size in sizes for dtype in types)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"shape": (8.5,)}, r"Field\(shape=\(8.5,\), components=1\): expected 1 to 8 dimensions and whole numbers"),
        ({"shape": "8"}, "expected 1 to 8 dimensions"),
        ({"shape": ()}, "expected 1 to 8 dimensions"),
        ({"shape": (0, 3)}, "whole numbers of at least 1"),
        ({"shape": 9 * (1,)}, "expected 1 to 8 dimensions"),
        ({"shape": 8, "components": 0}, "whole numbers of at least 1"),
        ({"shape": 8, "dtype": "single precision"}, "expected float32, float64, int32 or int64"),
    ],
)
def test_a_field_that_cannot_be_is_refused_when_it_is_made(arguments: dict[str, Any], text: str) -> None:
    with pytest.raises(FieldError, match=text):
        Field(**arguments)


@pytest.mark.parametrize("name", ["self", "step", "time", "offset", "indices"])
def test_a_field_with_the_name_of_an_argument_is_refused(name: str) -> None:
    with pytest.raises(FieldError, match=RESERVED):
        check_fields({name: Field(8)})


@pytest.mark.parametrize(
    ("fields", "text"),
    [
        ({"u": (8,)}, r"field 'u' is \(8,\): expected a Field, such as Field\(shape=\(8,\), components=1\)"),
        (["u"], r"fields = \['u'\]: expected a dictionary"),
    ],
)
def test_fields_that_are_none_say_what_to_write(fields: Any, text: str) -> None:
    with pytest.raises(FieldError, match=text):
        check_fields(fields)


@pytest.fixture
def client(tmp_path: Path) -> Iterator[Client]:
    with live_server(tmp_path / "run", {"u": {}, "v": {}}, simulations=2) as server:
        with Client(server.connect) as client:
            yield client
        server.engine.stop("the test ends")


def test_smaller_types_are_widened_and_odd_arguments_refused(client: Client) -> None:
    simulation = client.next_simulation()
    assert simulation is not None
    simulation.announce(u=Field(3), v=Field(3, dtype="float32"))
    good = {"u": np.arange(3), "v": np.arange(3, dtype=np.float32)}
    wrong: list[tuple[dict[str, Any], str]] = [
        ({"step": 0.5}, r"time step 0.5: expected a whole number; the physical time is the argument `time`"),
        ({"step": -1}, r"time step -1: expected 0, 1, 2"),
        ({"step": 0, "time": np.zeros(3)}, r"time has shape \(3,\) and dtype float64: expected one number"),
        ({"step": 0, "time": "now"}, "expected one number"),
        ({"step": 0, "v": np.zeros(3)}, "field 'v' has dtype float64, announced was float32: convert it"),
    ]
    for arguments, text in wrong:
        with pytest.raises(FieldError, match=text):
            simulation.send(**(good | arguments))
    simulation.send(np.int64(0), np.float32(0.5), u=[1, 2, 3], v=good["v"])  # type: ignore[arg-type]
    simulation.send(1, np.array(0.5), u=np.zeros(3, np.float32), v=np.zeros(3, ">f4"))  # type: ignore[arg-type]
    simulation.finish()


def test_what_run_yields_is_checked(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    class Solver:
        fields = {"u": Field(3), "v": Field(3)}  # noqa: RUF012

        def run(self, parameters: Any) -> Any:
            yield 0, 0.5, {"u": np.zeros(3)}

    simulation = client.next_simulation()
    assert simulation is not None
    said: list[str] = []
    monkeypatch.setattr(simulation, "fail", lambda message, **_: said.append(message))
    assert list(stream_solver(Solver(), simulation, ("u", "v"))) == []
    assert said == [
        "FieldError: the solver's `run` yielded 3 values: expected the physical time and the fields, such as "
        'time, {"u": u}'
    ]


@pytest.mark.parametrize("error", [ValueError("diverged at x = 3"), SystemExit("gave up")])
def test_an_exception_that_leaves_the_client_is_the_reason_of_the_failure(tmp_path: Path, error: BaseException) -> None:
    with live_server(tmp_path / "run", {"u": {}}, client_timeout=60.0, heartbeat=1.0) as server:
        begun = time.monotonic()
        with pytest.raises(type(error)), Client(server.connect) as client:
            for simulation in client.simulations():
                simulation.send(0, u=np.zeros(3))
                raise error
        report = server.report()
        assert time.monotonic() - begun < 20 * busy()  # and not when the client is given up
    assert report["failures"]["0"] == f"{type(error).__name__}: {error}"


def test_a_user_who_interrupts_the_program_hands_the_simulation_back(tmp_path: Path) -> None:
    with live_server(tmp_path / "run", {"u": {}}) as server:
        with pytest.raises(KeyboardInterrupt), Client(server.connect) as client:
            client.next_simulation()
            raise KeyboardInterrupt
        with Client(server.connect) as client:
            again = client.next_simulation()
            assert again is not None
            assert (again.id, server.engine.status().simulations.failed) == (0, 0)
            again.fail("the test ends")


def test_a_server_that_is_silent_is_not_waited_for_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock_client.client.REPORT_SECONDS", 0.1)
    monkeypatch.setattr("penstock_client.zmq_transport.LINGER_MS", 100)
    with live_server(tmp_path / "run", {"u": {}}) as server:
        begun = time.monotonic()
        with pytest.raises(ValueError, match="diverged"), Client(server.connect) as client:
            client.next_simulation()
            server.vanish()
            raise ValueError("diverged")
        assert time.monotonic() - begun < 10 * busy()  # and not the server's time-out of 30 s
