"""The share of a rank in the buffer, and the memory that it needs."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from penstock_server.buffer import memory
from penstock_server.study import FieldSpec, SampleSpec, Study
from penstock_server.trainer_rank import buffer_share

SPEC = SampleSpec(("a",), (FieldSpec("T", 1, (254,)),))  # 1,024 bytes a sample


def test_each_machine_needs_memory_for_its_own_ranks_only(
    heat_study: Callable[..., Study], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(memory, "available_memory", lambda: 600 * SPEC.bytes)
    study = heat_study(study={"engine": "ray"}, buffer={"capacity": 1000}, training={"ranks": 2})
    assert buffer_share(study, SPEC, ranks_here=1).capacity == 500
    with pytest.raises(ValueError, match="lower the capacity to 472 samples or less"):
        buffer_share(study, SPEC)
    with pytest.raises(ValueError, match="lower the capacity to 1072 samples or less"):
        buffer_share(study.model_copy(update={"buffer": study.buffer.model_copy(update={"capacity": 1100})}), SPEC, 1)
