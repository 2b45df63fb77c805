"""Memory that a trainer rank holds for the clients of each key outside the buffer, and the bound of that."""

from __future__ import annotations

from penstock_client.errors import Refused
from penstock_client.reasons import Reason
from penstock_server.study import Schema, Study

UNFINISHED = 16  # time steps that a simulation may always have unfinished; more while their bytes are few
STEP_BYTES = 1024  # of a time step beside its values
STRETCH_BYTES = 80  # of a stretch of elements that has come
LIST_BYTES = 512  # of an index list beside its points


class Holdings:
    """Bytes held for each key: unfinished time steps, index lists, and time steps that wait for their windows.

    It belongs to the thread that handles messages.

    Args:
        limit: bytes for each key; None: no limit.
    """

    def __init__(self, limit: int | None = None) -> None:
        self._limit = limit
        self._held: dict[str, int] = {}

    def held(self, worker: str) -> int:
        """Return the bytes held for a key, by its name."""
        return self._held.get(worker, 0)

    def take(self, worker: str, size: int) -> None:
        """Count `size` more bytes for a key.

        Args:
            worker: name of the key.
            size: number of bytes.

        Raises:
            Refused: the key would hold more than it may.
        """
        held = self._held.get(worker, 0) + size
        if self._limit is not None and held > self._limit:
            raise Refused(
                Reason.MALFORMED,
                f"the clients of key {worker!r} would make this trainer rank hold {held:,} bytes of unfinished time "
                f"steps, windows and index lists, at most {self._limit:,} are allowed: send all of a time step before "
                "the next, or give the workers keys of their own (penstock key add)",
            )
        self._held[worker] = held

    def give_back(self, worker: str, size: int) -> None:
        """Count `size` bytes less for a key."""
        left = self._held.get(worker, 0) - size
        if left > 0:
            self._held[worker] = left
        else:
            self._held.pop(worker, None)


def step_bytes(schema: Schema) -> int:
    """Return what one unfinished time step takes, in bytes."""
    return 4 * (schema.spec.n_inputs + schema.spec.width) + STEP_BYTES


def allowance(study: Study, schema: Schema, spare: int) -> int:
    """Return how many bytes the clients of one key may make a trainer rank hold outside the buffer.

    It is more than honest clients need: each of `concurrency` simulations may have UNFINISHED time steps unfinished, a
    window of them, an index list of each field, and twice the credit of each of its solver ranks. Workers from
    elsewhere, whose number is not known, share a quarter of the memory that is left.

    Args:
        study: its [solver], [samples] and [buffer].
        schema: the fields.
        spare: bytes of memory that the buffers leave to this rank.
    """
    solver, ranks = study.solver, study.solver.ranks
    step, points = step_bytes(schema), sum(f.points for f in schema.spec.fields) + 2 * schema.spec.fields[0].points
    lists = 17 * points + LIST_BYTES * ranks * (len(schema.spec.fields) + 2)  # with the static fields
    stretches = STRETCH_BYTES * (UNFINISHED + 1) * ranks * len(schema.spec.fields)
    least = (UNFINISHED + 1 + study.samples.window) * step + lists + stretches
    ahead = 2 * study.buffer.credit * ranks
    places = max(1, solver.concurrency)
    return max(places * least, min(places * (least + ahead), spare // 2), spare // 4)
