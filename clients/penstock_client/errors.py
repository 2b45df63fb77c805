"""All errors that the client raises on purpose.

PenstockError
├── ConnectError        connect.json is missing, unreadable or malformed; the server cannot be reached
├── WireError           bytes that are not a valid message (wrong magic, version, size, kind)
├── FieldError          an array does not fit the announced field; raised before anything is sent
├── Refused             the server refused a message; `.reason` is a `Reason`, the text says what to do
├── ConnectionBroken    pieces in transit to a trainer rank were lost; the simulation must be run again
├── Abandoned           the server no longer wants this simulation (the study is stopping, or gave it to another)
├── ServerLost          the server stopped answering for longer than its time-out
└── SimulationFailed    raised by a solver: its simulation has failed; `.final` says that it would fail again
"""

from __future__ import annotations

from penstock_client.reasons import Reason


class PenstockError(Exception):
    """Base class of all errors that Penstock raises on purpose."""


class ConnectError(PenstockError):
    """The server cannot be reached: connect.json is missing or malformed, or the address in it does not answer."""


class WireError(PenstockError):
    """Bytes are not a message of this version of the wire format (docs/wire-format.md)."""


class FieldError(PenstockError):
    """An array does not fit the announced field: wrong dtype, shape or name."""


class ServerLost(PenstockError):
    """The server has not answered heartbeats for longer than its time-out."""


class ConnectionBroken(PenstockError):
    """A data connection broke and pieces in transit were lost: the simulation is incomplete and must be run again."""


class Abandoned(PenstockError):
    """The server no longer wants this simulation: the study is stopping, or has handed it to another worker."""


class SimulationFailed(PenstockError):
    """A simulation has failed. Solvers raise it.

    Args:
        text: the reason, for the study's report.
        final: True where the simulation would fail again with the same parameters: it has diverged, or what it starts
            from cannot be made. The server then does not try it again, unless `[solver] retry_final` says so.

    Attributes:
        final: as given.
    """

    def __init__(self, text: str, *, final: bool = False) -> None:
        super().__init__(text)
        self.final = final


class Refused(PenstockError):
    """The server refused a message.

    Attributes:
        reason: the machine-readable reason, also the label under which the server counts it.
        text: what was wrong and what to do.
    """

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(f"{text} (refused: {reason.name.lower()})")
        self.reason = reason
        self.text = text
