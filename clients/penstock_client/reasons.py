"""Reasons for which a server refuses a message: codes on the wire, labels of the metric `penstock_refused_total`."""

from __future__ import annotations

from enum import IntEnum


class Reason(IntEnum):
    """Refusal codes of the wire format (docs/wire-format.md, section REFUSE)."""

    MALFORMED = 1  # truncated frame, wrong magic, unknown kind, payload of the wrong length
    VERSION = 2  # another version of the wire format
    INCARNATION = 3  # sent to an earlier incarnation, before the server was restarted
    UNKNOWN_SIMULATION = 4  # id outside the study, or not assigned to this client
    STALE_ATTEMPT = 5  # an older attempt than the current one
    UNKNOWN_FIELD = 6  # field id or name that the study does not have
    SCHEMA = 7  # announced dtype, components or size that differ from the study's
    SIZE = 8  # offset + count outside the field, or a payload that is not count x item size
    DTYPE = 9  # dtype that differs from the announced one
    NOT_FINITE = 10  # NaN or Inf in a field
    NO_BEGIN = 11  # a piece before BEGIN
    STUDY_OVER = 12  # the study has stopped; no more data is wanted
    NO_HELLO = 13  # a request over a connection without HELLO; send HELLO, then repeat the request
    GIVEN_UP = 14  # the client was silent for too long and was given up; it must connect again
