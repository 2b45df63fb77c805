"""Answering concurrent questions together: one evaluation of the model for all that wait."""

from __future__ import annotations

import queue
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field

from penstock_server.surrogate import Prediction, Surrogate

MOST_ROWS = 4096
"""Times of all questions that are evaluated together."""


@dataclass(frozen=True)
class Question:
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
    """

    def __init__(self, surrogate: Surrogate) -> None:
        self._surrogate = surrogate
        self._waiting: queue.SimpleQueue[Question | None] = queue.SimpleQueue()
        self.evaluations = 0
        self._thread = threading.Thread(target=self._run, name="penstock-service", daemon=True)
        self._thread.start()

    def ask(self, parameters: Mapping[str, float], times: Sequence[float]) -> Future[Prediction]:
        """Ask for a prediction.

        Args:
            parameters: parameter values by name, checked already.
            times: times of the prediction.

        Returns:
            The answer to come.
        """
        question = Question(parameters, times)
        self._waiting.put(question)
        return question.answer

    def close(self) -> None:
        """Answer what waits, then end the thread."""
        self._waiting.put(None)
        self._thread.join()

    def _run(self) -> None:
        over = False
        while not over:
            questions: list[Question] = []
            rows = 0
            item = self._waiting.get()
            while item is not None:
                questions.append(item)
                rows += len(item.times)
                if rows >= MOST_ROWS:
                    break
                try:
                    item = self._waiting.get_nowait()
                except queue.Empty:
                    break
            else:
                over = True
            if questions:
                self._answer(questions)

    def _answer(self, questions: Sequence[Question]) -> None:
        try:
            predictions = self._surrogate.predict_many([(q.parameters, q.times) for q in questions])
        except Exception as error:  # told to each that asked; the thread goes on
            for question in questions:
                question.answer.set_exception(error)
            return
        self.evaluations += 1
        for question, prediction in zip(questions, predictions, strict=True):
            question.answer.set_result(prediction)
