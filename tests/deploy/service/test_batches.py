"""Questions that come together are answered together, and none spoils another's answer."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from surrogates import POINT, exported

from penstock.service import Batches
from penstock_server.surrogate import Surrogate


@pytest.fixture(scope="module")
def surrogate(tmp_path_factory: pytest.TempPathFactory) -> Surrogate:
    return exported(tmp_path_factory.mktemp("run"))


class Held(Batches):
    """Whose first evaluation waits for `go`, so that further questions come meanwhile."""

    def __init__(self, surrogate: Surrogate) -> None:
        self.begun, self.go = threading.Event(), threading.Event()
        super().__init__(surrogate)

    def _answer(self, together):  # type: ignore[no-untyped-def]
        self.begun.set()
        self.go.wait(60)
        super()._answer(together)


@pytest.fixture
def held(surrogate: Surrogate) -> Iterator[Held]:
    batches = Held(surrogate)
    yield batches
    batches.go.set()
    batches.close()


def test_questions_that_come_together_are_answered_together(held: Held, surrogate: Surrogate) -> None:
    points = [{"speed": 1.0 + i / 200, "width": 0.2} for i in range(200)]
    first = held.ask(POINT, [1.0])
    assert held.begun.wait(60)
    futures = [held.ask(point, [1.0]) for point in points]
    held.go.set()
    answers = [future.result(60) for future in futures]
    assert (first.result().times, held.evaluations) == ([1.0], 2)
    for point, answer in zip(points, answers, strict=True):
        np.testing.assert_allclose(answer.fields["U"], surrogate.predict(point, [1.0]).fields["U"], rtol=1e-5)


def test_a_question_that_fails_is_alone_in_it(held: Held) -> None:
    held.ask(POINT, [1.0])
    assert held.begun.wait(60)
    good, bad = held.ask(POINT, [1.0]), held.ask({"speed": 1.0}, [1.0])
    held.go.set()
    with pytest.raises(KeyError):
        bad.result(60)
    assert good.result(60).times == [1.0]
    assert held.ask(POINT, [2.0]).result(60).times == [2.0]


def test_a_question_whose_client_has_gone_does_not_end_the_thread(held: Held) -> None:
    held.ask(POINT, [1.0])
    assert held.begun.wait(60)
    gone, stays = held.ask(POINT, [1.0]), held.ask(POINT, [2.0])
    assert gone.cancel()
    held.go.set()
    assert stays.result(60).times == [2.0]
    assert held.alive


def test_what_is_evaluated_together_is_bounded(surrogate: Surrogate, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("penstock.service.batches.MOST_NUMBERS", 3 * surrogate.width)
    held = Held(surrogate)
    held.ask(POINT, [1.0])
    assert held.begun.wait(60)
    futures = [held.ask(POINT, [1.0, 2.0]) for _ in range(6)]
    held.go.set()
    for future in futures:
        future.result(60)
    held.close()
    assert held.evaluations == 4


def test_close_answers_what_waits(surrogate: Surrogate, tmp_path: Path) -> None:
    batches = Batches(surrogate)
    futures = [batches.ask(POINT, [1.0]) for _ in range(50)]
    batches.close()
    assert all(future.done() for future in futures)
    assert not batches.alive
