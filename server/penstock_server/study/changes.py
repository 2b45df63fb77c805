"""Which keys of a study may change when it is resumed, and whether only those have changed since its last checkpoint."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from penstock_client.errors import PenstockError
from penstock_server.study.config import Study

CHANGEABLE = (
    "training.",
    "server.",
    "timeouts.",
    "solver.concurrency",
    "solver.retries",
    "solver.retry_final",
    "solver.same_failures",
    "solver.wall_time",
    "buffer.capacity",
    "buffer.storage",
    "buffer.watermark",
    "buffer.credit",
    "buffer.presentations_per_sample",
)
"""Beginnings of the keys that are applied when a study is resumed."""

_NO_KEY = "not there"
_BOUND = ("training.source", "training.members")
_ALLOWED = (
    "[training] but source and members, [server] or [timeouts], concurrency, retries, retry_final, same_failures or wall_time of "
    "[solver], or capacity, storage, watermark, credit or presentations_per_sample of [buffer]"
)


class StudyChanged(PenstockError):
    """The study differs from the one that its checkpoint belongs to, in a key that cannot change."""


def changeable(key: str) -> bool:
    """Return whether a key, such as "training.batch_size", is applied when a study is resumed."""
    return key.startswith(CHANGEABLE) and key not in _BOUND


def changeable_keys() -> str:
    """Return in words which keys are applied when a study is resumed."""
    return _ALLOWED


def study_state(study: Study) -> dict[str, Any]:
    """Return a study as plain data, for a checkpoint."""
    return study.model_dump(mode="json")


def expect_same_study(before: Mapping[str, Any], study: Study) -> None:
    """Check that a study differs from the one of its checkpoint in changeable keys only.

    Args:
        before: what `study_state` returned at the time of the checkpoint.
        study: the study that is resumed.

    Raises:
        StudyChanged: another key differs; the message names all of them.
    """
    then, now = dict(_flat(before)), dict(_flat(study_state(study)))
    # Keys that the checkpoint lacks belong to a later version of Penstock, where they stand for the former behaviour;
    # inside a table of the user's own names, such as [parameters], they are new.
    for name in study.fields:
        then.setdefault(f"fields.{name}.reference", 0.0)  # the name is the user's, the key a later version's
    changed = [
        f"{key} is {now.get(key, _NO_KEY)!r} and was {then.get(key, _NO_KEY)!r}"
        for key in sorted(then.keys() | now.keys())
        if then.get(key, _NO_KEY) != now.get(key, _NO_KEY)
        and not changeable(key)
        and (key in then or _named_by_user(key))
    ]
    if changed:
        raise StudyChanged(
            f"the study differs from the one that its last checkpoint belongs to: {'; '.join(changed)}: a study that has "
            f"begun is bound to these keys, expected changes of {_ALLOWED} only; put them back in study.toml, or start "
            "another study with `penstock run`"
        )


def _named_by_user(key: str) -> bool:
    return key.startswith(("parameters.", "fields.", "model.", "solver.entries.", "solver.options."))


def _flat(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield (dotted key, value) of nested tables."""
    if not isinstance(value, Mapping):
        yield key, value
        return
    for name, inner in value.items():
        yield from _flat(inner, f"{key}.{name}" if key else str(name))
