"""One simulation as its solver sees it: parameters in, time steps out."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from penstock_client.errors import FieldError, PenstockError, Refused, WireError
from penstock_client.payloads import (
    Accept,
    Announce,
    Begin,
    FieldAnnouncement,
    Finish,
    Outcome,
    Welcome,
)
from penstock_client.reasons import Reason
from penstock_client.stream import Stream
from penstock_client.wire import STATIC_STEP, WIRE_DTYPES, Dtype, Header, Kind


@dataclass(frozen=True)
class Field:
    """How a solver announces a field.

    shape: spatial shape of the whole field, e.g. (ny, nx) or (n_cells,). components: 1 scalar, 3 vector, 6 or 9 tensor;
    they come last in the arrays that are sent. dtype: float32, float64, int32 or int64.
    """

    shape: tuple[int, ...]
    components: int = 1
    dtype: str = "float64"
    static: bool = False


Request = Callable[[Header, bytes, Kind], bytes]
"""Sends one control message and returns the payload of its answer, which must be of the given kind."""


class Simulation:
    """One assigned simulation. Made by `Client`; not to be made by hand.

    Attributes:
        id, attempt: which simulation, and the how-manieth try it is (from 1).
        parameters: name to value, in the study's order.
        validation: True when the model never trains on it.
    """

    def __init__(
        self,
        header: Header,
        parameters: Mapping[str, float],
        *,
        validation: bool,
        ranks: int,
        welcome: Welcome,
        streams: Sequence[Stream],
        request: Request,
        check: Callable[[], None],
    ) -> None:
        self.id = header.simulation
        self.attempt = header.attempt
        self.parameters = dict(parameters)
        self.validation = validation
        self._header = header  # incarnation, simulation, attempt and rank of every message
        self._ranks = ranks
        self._welcome = welcome
        self._streams = streams
        self._request = request
        self._check = check
        self._fields: dict[str, Field] = {}
        self._ids: dict[str, int] = {}
        self._wanted: dict[str, bool] = {}
        self._steps: set[int] = set()
        self._over = False

    @property
    def over(self) -> bool:
        """True once finished, failed or handed back."""
        return self._over

    @property
    def abandoned(self) -> bool:
        """True once the server no longer wants this simulation or this client, or has stopped answering."""
        try:
            self._check()
        except PenstockError:
            return True
        return False

    def announce(self, **fields: Field) -> None:
        """Say which fields will be sent; done by the first `send` from its arrays where it is not done here.

        Raises:
            Refused: the study expects other fields, or another size, dtype or number of components.
        """
        announcements = tuple(
            FieldAnnouncement(name, _wire_dtype(name, f.dtype), f.components, f.shape, f.static)
            for name, f in fields.items()
        )
        payload = self._request(self._header._replace(kind=Kind.ANNOUNCE), Announce(announcements).pack(), Kind.ACCEPT)
        accept = Accept.unpack(payload)
        if len(accept.ids) != len(fields):
            raise WireError(f"ACCEPT has {len(accept.ids)} fields, announced were {len(fields)}")
        self._fields = fields
        self._ids = dict(zip(fields, accept.ids, strict=True))
        self._wanted = dict(zip(fields, accept.wanted, strict=True))
        begin = Begin(self._ranks, tuple(self.parameters.values()))
        for stream in self._streams:
            stream.begin(self._header._replace(kind=Kind.BEGIN), begin)

    def send(self, step: int, time: float = math.nan, **fields: ArrayLike) -> None:
        """Send one whole time step; returns when it may be overwritten. Waits while the server has no room.

        Args:
            step: 0, 1, 2, ... in order of emission.
            time: physical time, in the solver's units.
            fields: every announced field that is not static, of shape `shape` or `(*shape, components)`.

        Raises:
            FieldError: an array does not fit what was announced; nothing of this step has been sent.
            Refused, ConnectionBroken, Abandoned, ServerLost: see `penstock_client.errors`.
        """
        arrays = {name: np.asarray(value) for name, value in fields.items()}
        if not self._fields:
            self.announce(**{name: Field(a.shape, dtype=a.dtype.name) for name, a in arrays.items()})
        moving = {name for name, f in self._fields.items() if not f.static}
        if arrays.keys() != moving:
            raise FieldError(
                f"time step {step} of simulation {self.id} has the fields {sorted(arrays)}, announced were "
                f"{sorted(moving)}: send all of them in each step"
            )
        if step < 0:
            raise FieldError(f"time step {step}: expected 0, 1, 2, ...")
        ready = {name: self._checked(name, a) for name, a in arrays.items()}
        self._check()
        n = len(self._streams)
        stream = self._streams[self.id % n if self._welcome.pin_simulations else (self.id + step) % n]
        for name, array in ready.items():
            if not stream.may_send(array.nbytes):
                # Before waiting for this rank: what waits for company elsewhere may be what another rank waits for.
                for other in self._streams:
                    other.flush()
            stream.send(self._piece(name, step, time, array), array)
        stream.step_sent()
        self._steps.add(step)

    def send_static(self, **fields: ArrayLike) -> None:
        """Send static fields (mesh geometry), announced with static=True; those the server has already are skipped."""
        for name, value in fields.items():
            array = self._checked(name, np.asarray(value))
            if self._wanted[name]:
                self._streams[0].send(self._piece(name, STATIC_STEP, math.nan, array), array)

    def finish(self) -> None:
        """Wait until the server has dealt with every time step, then report the simulation finished.

        Raises:
            Refused: the server refused one or more pieces; the simulation is reported as failed by the caller.
            ConnectionBroken: one or more pieces were lost on their way; likewise.
        """
        if self._over:
            return
        if self._fields:
            for stream in self._streams:
                stream.request_end()
            for stream in self._streams:
                stream.await_end()
        self._end(Outcome.FINISHED, "")

    def fail(self, message: str) -> None:
        """Report this simulation as failed; the server decides whether it is tried again."""
        self._end(Outcome.FAILED, message)

    def hand_back(self) -> None:
        """Return the simulation unfinished, as a worker does that must leave; it does not count as a failure."""
        self._end(Outcome.RETURNED, "")

    def exited(self, message: str = "") -> None:
        """Report that a solver process which streams for itself has ended well (see `Outcome.EXITED`)."""
        self._end(Outcome.EXITED, message)

    def _end(self, outcome: Outcome, message: str) -> None:
        self._over = True
        blocked = sum(stream.blocked_seconds for stream in self._streams)
        finish = Finish(outcome, self._ranks, len(self._steps), message, blocked)
        for stream in self._streams:
            stream.blocked_seconds = 0.0
        try:
            self._request(self._header._replace(kind=Kind.FINISH), finish.pack(), Kind.FINISHED)
        except Refused as refused:
            # Somebody else has the simulation by now: how this attempt ended is of no consequence, unless it claims to be whole.
            if refused.reason is not Reason.STALE_ATTEMPT or outcome is Outcome.FINISHED:
                raise

    def _piece(self, name: str, step: int, time: float, array: NDArray) -> Header:  # type: ignore[type-arg]
        return self._header._replace(
            kind=Kind.PIECE,
            step=step,
            field=self._ids[name],
            offset=0,
            count=array.size,
            dtype=WIRE_DTYPES[array.dtype.newbyteorder("<")],
            time=time,
        )

    def _checked(self, name: str, array: NDArray) -> NDArray:  # type: ignore[type-arg]
        """The array as it will travel: C-contiguous, little-endian, of the announced dtype and shape."""
        field = self._fields.get(name)
        if field is None:
            raise FieldError(f"field {name!r} was not announced; announced were {sorted(self._fields)}")
        if array.dtype.name != field.dtype:
            raise FieldError(
                f"field {name!r} has dtype {array.dtype}, announced was {field.dtype}: convert it with "
                f"{name}.astype({field.dtype!r})"
            )
        whole = (*field.shape, field.components)
        if array.shape != whole and not (field.components == 1 and array.shape == field.shape):
            raise FieldError(
                f"field {name!r} has shape {array.shape}, announced was {field.shape} x {field.components}"
            )
        return np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))


def _wire_dtype(name: str, dtype: str) -> Dtype:
    try:
        return WIRE_DTYPES[np.dtype(dtype).newbyteorder("<")]
    except KeyError:
        raise FieldError(
            f"field {name!r} has dtype {dtype}, expected float32, float64, int32 or int64: convert it before sending"
        ) from None
