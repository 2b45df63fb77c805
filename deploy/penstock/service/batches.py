"""Answering concurrent questions together: one evaluation of the model for all that wait."""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from penstock_server.surrogate import Prediction, Surrogate

MOST_ROWS = 4096
"""Times of all questions that are evaluated together, at most; a single question may have more."""
MOST_NUMBERS = 2**24
"""Predicted numbers of all questions that are evaluated together, likewise."""


@dataclass(frozen=True)
class Asked:
    """One question, and where its answer goes.

    Attributes:
        parameters: parameter values by name.
        times: times of the prediction.
        answer: the prediction, or the error that it ended with.
    """

    parameters: Mapping[str, float]
    times: Sequence[float]
    answer: Future[Prediction] = field(default_factory=Future)


class Batches:
    """Evaluates a surrogate of single time steps on one thread. Questions that come meanwhile are answered together.

    A question never waits for others to come: the model is evaluated as soon as it is free.

    Args:
        surrogate: with window = 1.

    Attributes:
        evaluations: of the model so far.
    """

    def __init__(self, surrogate: Surrogate) -> None:
        self._surrogate = surrogate
        self._most_rows = max(1, min(MOST_ROWS, MOST_NUMBERS // surrogate.width))
        self._waiting: queue.SimpleQueue[Asked | None] = queue.SimpleQueue()
        self.evaluations = 0
        self._thread = threading.Thread(target=self._run, name="penstock-service", daemon=True)
        self._thread.start()

    @property
    def alive(self) -> bool:
        """Whether questions are answered."""
        return self._thread.is_alive()

    def ask(self, parameters: Mapping[str, float], times: Sequence[float]) -> Future[Prediction]:
        """Ask for a prediction.

        Args:
            parameters: parameter values by name, checked already.
            times: times of the prediction.

        Returns:
            The answer to come.
        """
        asked = Asked(parameters, times)
        self._waiting.put(asked)
        return asked.answer

    def close(self) -> None:
        """Answer what waits, then end the thread. Nothing may be asked afterwards."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        over = False
        while not over:
            together: list[Asked] = []
            rows = 0
            item = self._waiting.get()
            while item is not None:
                together.append(item)
                rows += len(item.times)
                if rows >= self._most_rows:
                    break
                try:
                    item = self._waiting.get_nowait()
                except queue.Empty:
                    break
            else:
                over = True
            # Those whose client has gone are left out.
            self._answer([asked for asked in together if asked.answer.set_running_or_notify_cancel()])

    def _answer(self, together: Sequence[Asked]) -> None:
        if not together:
            return
        self.evaluations += 1
        try:
            predictions = self._surrogate.predict_many([(asked.parameters, asked.times) for asked in together])
        except Exception as error:
            if len(together) == 1:  # told to the one that asked; the thread goes on
                together[0].answer.set_exception(error)
                return
            for asked in together:  # one question must not spoil the answers of others
                self._answer([asked])
            return
        for asked, prediction in zip(together, predictions, strict=True):
            asked.answer.set_result(prediction)
