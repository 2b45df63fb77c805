"""The coordinator compares the fields that clients announce with the study."""

from __future__ import annotations

import re

import pytest
from talk import T_FIELD, Talk

from penstock_client.payloads import Accept, Announce, FieldAnnouncement, Refuse
from penstock_client.reasons import Reason
from penstock_client.wire import Dtype, Kind, unpack
from penstock_server.telemetry import EventLog


@pytest.mark.parametrize(
    ("name", "fields", "reason", "text"),
    [
        ("unknown", (T_FIELD, FieldAnnouncement("U", Dtype.FLOAT32, 3, (4,))), Reason.UNKNOWN_FIELD, "field 'U': the study has T"),
        ("missing", (), Reason.SCHEMA, "field T was not announced"),
        ("empty", (FieldAnnouncement("T", Dtype.FLOAT32, 1, (0,)),), Reason.SCHEMA, r"announced as FLOAT32 \(0,\)"),
        ("static", (T_FIELD, FieldAnnouncement("x", Dtype.FLOAT64, 1, (4,), True)), Reason.UNKNOWN_FIELD, "static field 'x'"),
    ],
)  # fmt: skip
def test_fields_that_the_study_does_not_have_are_refused(talk: Talk, name, fields, reason, text) -> None:
    talk.hello(b"a")
    simulation, attempt = talk.assigned(b"a")
    ((_, header, payload),) = talk.say(b"a", Kind.ANNOUNCE, Announce(fields).pack(), simulation, attempt)
    assert header.kind is Kind.REFUSE, name
    refuse = Refuse.unpack(payload)
    assert refuse.reason is reason
    assert re.search(text, refuse.text), refuse.text


def test_the_first_announcement_fixes_what_later_ones_must_agree_with(talk: Talk) -> None:
    talk.hello(b"a")
    simulation, attempt = talk.assigned(b"a")
    ((_, header, payload),) = talk.say(b"a", Kind.ANNOUNCE, Announce((T_FIELD,)).pack(), simulation, attempt)
    assert header.kind is Kind.ACCEPT
    assert Accept.unpack(payload).ids == (0,)
    assert len(talk.schemas) == 1
    finer = FieldAnnouncement("T", Dtype.FLOAT32, 1, (8, 8))
    ((_, header, payload),) = talk.say(b"a", Kind.ANNOUNCE, Announce((finer,)).pack(), simulation, attempt)
    assert "(8, 8) x 1, the study's first client announced float32 (4, 4) x 1" in Refuse.unpack(payload).text
    assert len(talk.schemas) == 1


def test_an_announcement_is_answered_when_the_trainer_ranks_are_ready_and_heartbeats_meanwhile(talk: Talk) -> None:
    talk.ready = False
    talk.hello(b"a")
    simulation, attempt = talk.assigned(b"a")
    assert talk.say(b"a", Kind.ANNOUNCE, Announce((T_FIELD,)).pack(), simulation, attempt) == []
    ((_, header, _),) = talk.say(b"h", Kind.HEARTBEAT, b"a".ljust(16, b"."), simulation, attempt)
    assert header.kind is Kind.ALIVE
    ((peer, (frame, _)),) = talk.coordinator.configured()
    assert (peer, unpack(frame).kind) == (b"a", Kind.ACCEPT)


def test_components_come_from_the_study_file_where_a_client_sends_plain_arrays(events: EventLog, make_study) -> None:
    talk = Talk(events, make_study(fields={"T": None, "U": {"components": 3}}))
    talk.hello(b"a")
    simulation, attempt = talk.assigned(b"a")
    plain = FieldAnnouncement("U", Dtype.FLOAT64, 1, (9, 3))
    talk.say(b"a", Kind.ANNOUNCE, Announce((plain,)).pack(), simulation, attempt)
    (field,) = talk.schemas[0].spec.fields
    assert (field.shape, field.components) == ((9,), 3)
