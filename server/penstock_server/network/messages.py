"""The envelope of every message to the server: header and incarnation, answer and refusal.

The coordinator and the ingest of a trainer rank share it. What a message says is theirs.
"""

from __future__ import annotations

from collections.abc import Callable

from penstock_client.errors import Refused, WireError
from penstock_client.payloads import Refuse
from penstock_client.reasons import Reason
from penstock_client.wire import Header, Kind, VersionMismatch

Message = tuple[bytes, list[bytes]]
"""The routing id of a connection, and the frames to send over it."""

Frames = list[bytes | memoryview]
"""The frames of a message that has come; large ones are views of its memory."""

MAX_RANKS = 2**16  # solver ranks of one simulation
MAX_TEXT = 1000  # characters kept of a client's text, or sent in a refusal, which may quote what was sent


class Envelope:
    """Checks which incarnation a message belongs to, and makes the frames of answers and refusals.

    Args:
        incarnation: of this server.
        on_refused: called with the reason of every refusal, to count it.
    """

    def __init__(self, incarnation: int, on_refused: Callable[[Reason], None]) -> None:
        self._incarnation = incarnation
        self._on_refused = on_refused

    def check(self, header: Header) -> None:
        """Check that a message belongs to this incarnation.

        Raises:
            Refused: it belongs to another one.
        """
        if header.incarnation != self._incarnation:
            raise Refused(
                Reason.INCARNATION,
                f"this is incarnation {self._incarnation} of the server, the message belongs to {header.incarnation}: "
                "read connect.json again",
            )

    def answer(self, header: Header, kind: Kind, payload: bytes = b"") -> list[bytes]:
        """Return the frames of an answer, which repeats the header of the message it answers.

        Args:
            header: of that message.
            kind: of the answer.
            payload: of the answer.

        Returns:
            Two frames: header and payload.
        """
        return [header._replace(kind=kind, incarnation=self._incarnation).pack(), payload]

    def refuse(self, header: Header, reason: Reason, text: str) -> list[bytes]:
        """Count a refusal and return its frames.

        Args:
            header: of the message that is refused.
            reason: why, in the protocol's words.
            text: what was wrong and what to do; cut to MAX_TEXT characters.

        Returns:
            Two frames: header and payload.
        """
        self._on_refused(reason)
        return self.refusal(header, reason, text)

    def refusal(self, header: Header, reason: Reason, text: str) -> list[bytes]:
        """Return the frames of a refusal that is not counted as one; see `refuse`."""
        return self.answer(header, Kind.REFUSE, Refuse(reason, text[:MAX_TEXT]).pack())


def refusal_of(error: Refused | WireError) -> tuple[Reason, str]:
    """Return the reason and text by which a message that raised this error is refused."""
    if isinstance(error, Refused):
        return error.reason, error.text
    return Reason.VERSION if isinstance(error, VersionMismatch) else Reason.MALFORMED, str(error)
