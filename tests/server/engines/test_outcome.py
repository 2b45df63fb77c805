"""How a study has ended, by what its simulations came to."""

from __future__ import annotations

from dataclasses import replace

import pytest

from penstock_server.buffer import Buffer
from penstock_server.coordinator import SimulationCounts
from penstock_server.engines.results import study_outcome
from penstock_server.study import FieldSpec, SampleSpec
from penstock_server.trainer_rank import RankStatus

SPEC = SampleSpec(("a",), (FieldSpec("T", 1, (2,)),))
SOME_SAMPLES = replace(Buffer(SPEC, policy="fifo", capacity=2, watermark=0, batch_size=1).stats(), received=5)


@pytest.mark.parametrize(
    ("finished", "failed", "status", "message"),
    [
        (0, 8, "failed", "all simulations failed (8 of 8)"),
        (3, 5, "failed", "most simulations failed (5 of 8)"),
        (4, 4, "finished", "production ended"),
        (8, 0, "finished", "production ended"),
    ],
)
def test_a_study_of_which_most_simulations_failed_has_failed(
    finished: int, failed: int, status: str, message: str
) -> None:
    counts = SimulationCounts(requested=8, finished=finished, failed=failed)
    ranks = [RankStatus(over="production ended", buffer=SOME_SAMPLES)]
    got, why = study_outcome(ranks, counts, "", "")
    assert got == status
    assert why.startswith(message)
    assert study_outcome(ranks, counts, "", "told to") == ("stopped", "told to")
