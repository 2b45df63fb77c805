"""One simulation from the solver's side: it reads the parameters and sends the time steps."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress

import numpy as np
from numpy.typing import ArrayLike, NDArray

from penstock_client.block import Array, RowLayout
from penstock_client.errors import Abandoned, FieldError, PenstockError, Refused, ServerLost, WireError
from penstock_client.payloads import Accept, Announce, FieldAnnouncement, Finish, Outcome, Welcome
from penstock_client.piece import Field, check_fields, checked_indices, first_element
from penstock_client.reasons import Reason
from penstock_client.stream import Stream
from penstock_client.stream_payloads import Begin
from penstock_client.wire import MAX_PIECE_BYTES, STATIC_STEP, WIRE_DTYPES, Dtype, Header, Kind

Request = Callable[[Header, bytes, Kind], bytes]
"""Sends a request to the coordinator and returns the payload of the answer, which must have the given kind."""


class Simulation:
    """A simulation that the server has assigned. `Client` makes these objects.

    Args:
        header: incarnation, simulation id, attempt number and MPI rank, for every message.
        parameters: parameter values by name, in the study's order.
        validation: whether the simulation is held out.
        ranks: number of MPI ranks of the solver.
        welcome: settings of the study.
        streams: data connections, one per trainer rank.
        request: sends a request to the coordinator.
        check: raises an error when it is pointless to go on with this simulation.

    Attributes:
        id: simulation id.
        attempt: attempt number, starting at 1.
        parameters: parameter values by name, in the study's order.
        validation: True if the simulation is held out for validation: the model never trains on it.
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
        self._header = header
        self._ranks = ranks
        self._welcome = welcome
        self._streams = streams
        self._request = request
        self._check = check
        self._fields: dict[str, Field] = {}
        self._ids: dict[str, int] = {}
        self._wanted: dict[str, bool] = {}
        self._indices: NDArray[np.int32] | NDArray[np.int64] | None = None
        self._row: RowLayout | None = None  # of a whole time step, where this process sends whole ones
        self._steps: set[int] = set()
        self._over = False

    @property
    def over(self) -> bool:
        """True once the simulation is finished, failed or handed back."""
        return self._over

    @property
    def abandoned(self) -> bool:
        """True once the server no longer wants this simulation or this client, or has stopped answering.

        Raises:
            WireError: the server answered a heartbeat with bytes that are not a valid message.
        """
        try:
            self._check()
        except (Abandoned, Refused, ServerLost):
            return True
        return False

    def announce(self, indices: ArrayLike | None = None, **fields: Field) -> None:
        """Announce the fields that will be sent.

        Without this call, the first `send` announces the fields of its arrays.

        Args:
            indices: points of the whole fields that this MPI rank holds, (n,), in the order in which it will send them.
                Needed where a rank's part is not contiguous (an unstructured mesh's partition). Each point belongs to
                one rank.
            **fields: the fields, by name.

        Raises:
            Refused: the study expects other fields, or another size, dtype or number of components.
            FieldError: `indices` contains a point that a field does not have, or a field is not a `Field`, or has the
                name of an argument of `send`.
        """
        check_fields(fields)
        held = None if indices is None else checked_indices(fields, indices)
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
        self._indices = held
        layout = RowLayout.of(fields, self._ids)
        self._row = layout if self._ranks == 1 and held is None and layout.bytes <= MAX_PIECE_BYTES else None
        if held is not None and held.size:
            header = self._header._replace(kind=Kind.INDICES, count=held.size, dtype=WIRE_DTYPES[held.dtype])
            for name, f in fields.items():
                if self._wanted[name] or not f.static:
                    for stream in self._streams[: 1 if f.static else None]:
                        stream.describe(header._replace(field=self._ids[name]), held)

    def send(self, step: int, time: float = math.nan, offset: int | None = None, **fields: ArrayLike) -> None:
        """Send one time step, or this MPI rank's part of it. Waits while the server has no room.

        Args:
            step: number of the time step: 0, 1, 2, ... in the order of sending.
            time: physical time, in the solver's units.
            offset: first point of the arrays in the whole fields (row-major), where the arrays are a contiguous part of
                them.
            **fields: every announced field that is not static, of shape `shape` or `(*shape, components)`. A part (with
                `offset` or announced indices) may have any shape with the components as its last axis, and may be
                empty. An array of a smaller type than announced is widened (float32 to float64). The arrays may be
                overwritten after the call.

        Raises:
            FieldError: an array does not fit the announced field, or `step` or `time` is not a number; nothing of this
                time step has been sent.
            Refused: the server refused an earlier piece.
            ConnectionBroken: pieces in transit were lost.
            Abandoned: the server no longer wants this simulation.
            ServerLost: the server stopped answering.
        """
        step, time = _step_number(step), _physical_time(time)
        row = None if self._row is None or offset is not None else self._row.arrays(fields)
        parts: dict[str, tuple[int, Array]] = {}
        if row is None:
            parts = self._parts(step, offset, fields)
            if self._row is not None and offset is None:
                row = [parts[field.name][1] for field in self._row.fields]
        self._check()
        stream = self._streams[(self.id if self._welcome.pin_simulations else self.id + step) % len(self._streams)]
        if row is not None:
            assert self._row is not None
            if not stream.may_send(self._row.bytes):
                self._flush_all()
            stream.send_step(step, time, row, self._row.bytes)
        else:
            for name, (first, array) in parts.items():
                self._send_part(stream, name, step, time, first, array)
        stream.step_sent()
        for other in self._streams:  # the other trainer ranks wait, too
            if other is not stream:
                other.flush_old()
        self._steps.add(step)

    def send_static(self, offset: int | None = None, **fields: ArrayLike) -> None:
        """Send static fields (mesh geometry), except those that the server already has.

        Args:
            offset: as for `send`.
            **fields: fields that were announced with static=True, as for `send`.

        Raises:
            FieldError: an array does not fit the announced field.
        """
        for name, value in fields.items():
            first, array = self._checked(name, np.asarray(value), offset)
            if self._wanted[name]:
                self._send_part(self._streams[0], name, STATIC_STEP, math.nan, first, array)

    def finish(self) -> None:
        """Wait until the server has processed every time step, then report the simulation as finished.

        Raises:
            Refused: the server refused one or more pieces; the caller must report the simulation as failed.
            ConnectionBroken: one or more pieces were lost in transit; the caller must report the simulation as failed.
        """
        if self._over:
            return
        if self._fields:
            for stream in self._streams:
                stream.request_end()
            for stream in self._streams:
                stream.await_end()
        self._end(Outcome.FINISHED, "")

    def fail(self, message: str, *, final: bool = False) -> None:
        """Report the simulation as failed. The server decides whether it is tried again.

        Args:
            message: reason of the failure, for the study's report.
            final: True where it would fail again with the same parameters, as a diverged simulation does.
        """
        self._end(Outcome.FAILED_FOR_GOOD if final else Outcome.FAILED, message)

    def hand_back(self) -> None:
        """Return the simulation unfinished, because this worker must leave. This is not a failure."""
        self._end(Outcome.RETURNED, "")

    def exited(self, message: str = "") -> None:
        """Report that a solver process with a stream of its own has ended with code 0 (see `Outcome.EXITED`).

        Args:
            message: summary of the run, as JSON text.
        """
        self._end(Outcome.EXITED, message)

    def _end(self, outcome: Outcome, message: str) -> None:
        self._over = True
        blocked = sum(stream.blocked_seconds for stream in self._streams)
        finish = Finish(outcome, self._ranks, len(self._steps), message, blocked)
        for stream in self._streams:
            stream.blocked_seconds = 0.0
            with suppress(PenstockError):  # the control connection tells what is wrong
                stream.flush()  # the ranks take nothing of an attempt that ended long ago
        try:
            self._request(self._header._replace(kind=Kind.FINISH), finish.pack(), Kind.FINISHED)
        except Refused as refused:
            # The simulation has been handed out again. The end of this attempt no longer matters, unless it claims
            # success.
            if refused.reason is not Reason.STALE_ATTEMPT or outcome is Outcome.FINISHED:
                raise

    def _send_part(
        self,
        stream: Stream,
        name: str,
        step: int,
        time: float,
        first: int,
        array: NDArray,  # type: ignore[type-arg]
    ) -> None:
        """Send this rank's part of a field, in pieces of whole points that a message has room for."""
        values = array.reshape(-1)
        components = self._fields[name].components
        slice_size = max(1, MAX_PIECE_BYTES // (values.itemsize * components)) * components
        for begin in range(0, values.size, slice_size):
            piece = values[begin : begin + slice_size]
            if not stream.may_send(piece.nbytes):
                self._flush_all()
            stream.send(self._piece(name, step, time, first + begin, piece), piece)

    def _flush_all(self) -> None:
        """Before waiting for one trainer rank, flush all: others may be waiting for the pieces held back here."""
        for stream in self._streams:
            stream.flush()

    def _parts(self, step: int, offset: int | None, fields: Mapping[str, ArrayLike]) -> dict[str, tuple[int, Array]]:
        """Check and convert the arrays of a time step; announce the fields if that has not been done.

        Returns:
            By field: the number of the array's first element, and the array in C order and little-endian.
        """
        arrays = {name: np.asarray(value) for name, value in fields.items()}
        if not self._fields:
            if offset is not None:
                raise FieldError("offset given, but the whole fields' shapes are not known: call announce(...) first")
            self.announce(None, **{name: Field(a.shape, dtype=a.dtype.name) for name, a in arrays.items()})
        moving = {name for name, f in self._fields.items() if not f.static}
        if arrays.keys() != moving:
            raise FieldError(
                f"time step {step} of simulation {self.id} has the fields {sorted(arrays)}, announced were "
                f"{sorted(moving)}: send all of them in each step"
            )
        return {name: self._checked(name, a, offset) for name, a in arrays.items()}

    def _piece(self, name: str, step: int, time: float, first: int, array: NDArray) -> Header:  # type: ignore[type-arg]
        return self._header._replace(
            kind=Kind.PIECE,
            step=step,
            field=self._ids[name],
            offset=first,
            count=array.size,
            dtype=WIRE_DTYPES[array.dtype.newbyteorder("<")],
            time=time,
        )

    def _checked(self, name: str, array: Array, offset: int | None) -> tuple[int, Array]:
        """Return the number of the array's first element, and the array in C order and little-endian."""
        field = self._fields.get(name)
        if field is None:
            raise FieldError(f"field {name!r} was not announced; announced were {sorted(self._fields)}")
        if array.dtype.name != field.dtype and np.can_cast(array.dtype, field.dtype):  # such as float32 to float64
            array = array.astype(field.dtype)
        if array.dtype.name != field.dtype:
            raise FieldError(
                f"field {name!r} has dtype {array.dtype}, announced was {field.dtype}: convert it with "
                f"{name}.astype({field.dtype!r})"
            )
        first = first_element(name, field, array, offset, self._indices)
        return first, np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))


def _step_number(step: int) -> int:
    if type(step) is int and step >= 0:
        return step
    try:
        number = operator.index(step)
    except TypeError:
        raise FieldError(
            f"time step {step!r}: expected a whole number; the physical time is the argument `time`"
        ) from None
    if number < 0:
        raise FieldError(f"time step {number}: expected 0, 1, 2, ...")
    return number


def _physical_time(time: float) -> float:
    if type(time) is float:
        return time
    value = np.asarray(time)
    if value.size != 1 or not np.can_cast(value.dtype, np.float64):
        raise FieldError(
            f"time has shape {value.shape} and dtype {value.dtype}: expected one number, in the solver's units; a field "
            "cannot be named time"
        )
    return float(value.item())


def _wire_dtype(name: str, dtype: str) -> Dtype:
    try:
        return WIRE_DTYPES[np.dtype(dtype).newbyteorder("<")]
    except KeyError:
        raise FieldError(
            f"field {name!r} has dtype {dtype}, expected float32, float64, int32 or int64: convert it before sending"
        ) from None
