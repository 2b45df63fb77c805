"""Define the study, change the messages of strangers and check the server's answers, for ingest_target and coordinator_target."""

from __future__ import annotations

import dataclasses
from collections import deque

from mutations import Frames

from penstock_client.payloads import FieldAnnouncement, Refuse
from penstock_client.wire import Dtype, Kind, unpack
from penstock_server.study import FieldSection, SamplesSection, agree

LIFE, POINTS = 7, 4
N_SIMULATIONS, HELD_OUT = 8, 7  # held out: from here on
PEERS = (b"a", b"b", b"c", b"\0\xff")
ROOMS = ("penstock_server.ingest", "penstock_server.coordinator")  # `held` looks into the objects of these packages
MAX_REPLY = 4096  # bytes of any answer but WELCOME
FIELDS = {"U": FieldSection(components=3), "p": FieldSection()}
ANNOUNCED = (
    FieldAnnouncement("U", Dtype.FLOAT64, 3, (POINTS,)),
    FieldAnnouncement("p", Dtype.FLOAT32, 1, (POINTS,)),
    FieldAnnouncement("cell_centres", Dtype.FLOAT64, 3, (POINTS,), True),
)
SCHEMAS = {window: agree(ANNOUNCED, FIELDS, ("a", "b"), SamplesSection(window=window), None) for window in (1, 3)}


def spare(frames: Frames, simulation: int) -> Frames:
    """Make the messages that name this simulation, the valid client's, name simulation 0 instead.

    The server takes a message for one of the client whose simulation it names, so a stranger who names the valid client's
    simulation harms that client, which is no finding.
    """
    named = simulation.to_bytes(8, "little")
    return [f[:16] + bytes(8) + f[24:] if len(f) == 64 and f[16:24] == named else f for f in frames]


def about(other: bytes, frames: Frames) -> Frames:
    """Give the messages the simulation and attempt of another header, so that the server refuses fewer of them."""
    return [f[:12] + other[12:24] + f[24:] if len(f) == 64 else f for f in frames]


def check_answers(answers: list[tuple[bytes, Frames]], allowed: set[Kind], peer: bytes | None, taken: int) -> None:
    """Check that the protocol allows the answers, that they go to the peer that asked, and that their size is bounded."""
    assert len(answers) <= taken, f"{len(answers)} answers to {taken} frames"
    for to, frames in answers:
        header = unpack(frames[0])
        assert header.kind in allowed, header
        assert header.incarnation == LIFE
        assert peer is None or to == peer
        assert len(frames) == 2
        assert len(frames[1]) <= MAX_REPLY, f"{header.kind.name} of {len(frames[1])} bytes"
        if header.kind is Kind.REFUSE:
            Refuse.unpack(frames[1])


def held(thing: object) -> dict[str, int]:
    """Count the entries of the tables that an object keeps, and of the tables of the objects in them."""
    sizes = {}
    for name, table in vars(thing).items():
        if isinstance(table, (dict, list, set, deque)):
            sizes[name] = len(table)
            for entry in table.values() if isinstance(table, dict) else table:
                if dataclasses.is_dataclass(entry) and hasattr(entry, "__dict__"):
                    sizes |= {f"{name}.{n}": max(size, sizes.get(f"{name}.{n}", 0)) for n, size in held(entry).items()}
        elif hasattr(table, "__dict__") and type(table).__module__.startswith(ROOMS):
            sizes |= {f"{name}.{n}": size for n, size in held(table).items()}
    return sizes
