"""Checkpoints of one number of trainer ranks, taken over by another: nothing lost, nothing twice, everything where it is looked for."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from buffers import in_memory
from penstock_server.buffer import Buffer
from penstock_server.checkpoint import load_latest, write_checkpoint
from penstock_server.ingest import Ledger
from penstock_server.study import FieldSpec, SampleSpec
from penstock_server.trainer_rank.redistribution import parts_of, rank_of
from penstock_server.training import Normaliser, RankGroup
from penstock_server.validation import ValidationStore

SEED = 11
ARRIVALS = st.sets(st.tuples(st.integers(0, 6), st.integers(0, 40)), max_size=60)


def spec_of(window: int) -> SampleSpec:
    return SampleSpec(("a",), (FieldSpec("T", 1, (3,)),), window=window)


class Rank:
    """What one trainer rank keeps."""

    def __init__(self, spec: SampleSpec, seed: int) -> None:
        self.spec = spec
        self.trained, self.validated = Ledger(), Ledger()
        self.buffer = Buffer(spec, policy="reservoir", capacity=64, batch_size=2, seed=seed)
        self.normaliser = Normaliser(spec)
        self.validation = ValidationStore(spec)

    def take(self, simulation: int, sample: int) -> None:
        slot = self.buffer.reserve()
        slot.inputs[:], slot.targets[:] = simulation, sample
        slot.simulation, slot.sample = simulation, sample
        self.normaliser.update(slot.inputs[None], slot.targets[None])
        self.buffer.commit(slot)
        self.trained.mark(simulation, sample)

    def hold_out(self, simulation: int, step: int) -> None:
        self.validated.mark(simulation, step)
        row = np.full(self.spec.width, step, np.float32)
        self.validation.add(simulation, step, np.full(self.spec.n_inputs, simulation, np.float32), row)

    def state(self, number: int) -> dict[str, Any]:
        common: dict[str, Any] = {"trainer": {"weight": torch.ones(2), "torch_rng": torch.get_rng_state()}}
        if number:
            common = {"random": {"torch_rng": torch.Generator().manual_seed(number).get_state(), "cuda_rng": None}}
        return {
            **common,
            "ledger": {"trained": self.trained.state_dict(), "validated": self.validated.state_dict()},
            "buffer": in_memory(self.buffer.state_dict()),
            "normaliser": self.normaliser.state_dict(),
            "validation": self.validation.state_dict(),
            "clock": {"wall": 3.0, "training": 2.0, "stall": 0.5, "samples": 7},
            "counts": {"received": 5, "duplicates": 1, "bytes": 40, "incomplete": 0, "refused": {"size": number}},
        }


def write(directory: Path, ranks: list[Rank]) -> None:
    """One checkpoint of all ranks, as a group would write it; the group itself is tested with processes of its own."""

    class Others(RankGroup):
        """Rank 0 of `size`, whose others have written before."""

        def gather_text(self, text: str) -> list[str]:
            return [text]

    parts = {}
    for number, rank in enumerate(ranks):
        prefix = "" if number == 0 else f"rank-{number}."
        parts |= {prefix + name: value for name, value in rank.state(number).items()}
    write_checkpoint(directory, 1, parts, group=Others(0, len(ranks)))


def filled(arrivals: set[tuple[int, int]], held_out: set[tuple[int, int]], ranks: int, window: int) -> list[Rank]:
    spec = spec_of(window)
    made = [Rank(spec, seed) for seed in range(ranks)]
    for simulation, sample in sorted(arrivals):
        made[rank_of(simulation, sample, ranks, pinned=window > 1)].take(simulation, sample)
    for simulation, step in sorted(held_out):
        made[rank_of(simulation, step, ranks, pinned=window > 1)].hold_out(simulation, step)
    for rank in made:
        rank.buffer.try_get(2)  # some are seen, some are not
    return made


def marks(ledger: Ledger) -> set[tuple[int, int]]:
    return {(s, i) for s in ledger.simulations() for i in range(64) if ledger.has(s, i)}


@settings(deadline=None, max_examples=40)
@given(
    arrivals=ARRIVALS,
    held_out=ARRIVALS,
    before=st.sampled_from([1, 2, 3, 4]),
    after=st.sampled_from([1, 2, 4, 5]),
    window=st.sampled_from([1, 2]),
)
def test_everything_is_taken_over_once(
    tmp_path_factory: pytest.TempPathFactory,
    arrivals: set[tuple[int, int]],
    held_out: set[tuple[int, int]],
    before: int,
    after: int,
    window: int,
) -> None:
    directory = tmp_path_factory.mktemp("checkpoints")
    old = filled(arrivals, held_out, before, window)
    write(directory, old)
    checkpoint = load_latest(directory)
    assert checkpoint.ranks == before
    spec = spec_of(window)
    new = [Rank(spec, 99) for _ in range(after)]
    for number, rank in enumerate(new):
        part = parts_of(checkpoint, number, after, spec, SEED)
        rank.buffer.load_state_dict(part("buffer"))
        rank.trained.load_state_dict(part("ledger")["trained"])
        rank.validated.load_state_dict(part("ledger")["validated"])
        rank.normaliser.load_state_dict(part("normaliser"))
        rank.validation.load_state_dict(part("validation"))
        assert torch.equal(part("trainer")["weight"], torch.ones(2))

    # Ledgers: each mark where the clients of its simulation will send, and nowhere else.
    for number, rank in enumerate(new):
        own = {a for a in arrivals if rank_of(*a, after, pinned=window > 1) == number}
        assert marks(rank.trained) == own
        assert rank.trained.total() == len(own)
        own = {h for h in held_out if rank_of(*h, after, pinned=window > 1) == number}
        assert marks(rank.validated) == own
        assert {(s, i) for s, steps in rank.validation.simulations().items() for i in steps} == own
        for simulation, step in own:
            inputs, targets = rank.validation.time_step(simulation, step)
            assert (float(inputs[0]), float(targets[0])) == (simulation, step)

    # Samples: each once, its own content, unseen ones still unseen; evenly dealt where the number has changed.
    assert Counter(i for r in new for i in r.buffer.identifiers()) == Counter(
        i for r in old for i in r.buffer.identifiers()
    )
    stats_old, stats_new = [r.buffer.stats() for r in old], [r.buffer.stats() for r in new]
    for name in ("population", "unseen", "received", "presentations", "trained_unique", "evicted"):
        assert sum(getattr(s, name) for s in stats_new) == sum(getattr(s, name) for s in stats_old), name
    seen = [sum((Counter(s.times_seen) for s in stats), Counter()) for stats in (stats_old, stats_new)]
    assert seen[0] == seen[1]
    if before != after:
        populations = [s.population for s in stats_new]
        assert max(populations) - min(populations) <= 1
    for rank in new:
        rank.buffer.end_production()
        while (batch := rank.buffer.try_get(2)) is not None:
            assert len(batch)

    # Statistics: of everything, once.
    merged = sum(rank.normaliser.rows_seen for rank in new)
    assert merged == len(arrivals) * window
    assert sum(parts_of(checkpoint, n, after, spec, SEED)("counts")["received"] for n in range(after)) == 5 * before


def test_ranks_that_there_were_before_keep_their_random_numbers_and_new_ones_have_their_own(tmp_path: Path) -> None:
    write(tmp_path, filled({(0, 0), (1, 1)}, set(), 2, 1))
    checkpoint = load_latest(tmp_path)
    states = [parts_of(checkpoint, rank, 3, spec_of(1), SEED)("trainer")["torch_rng"] for rank in range(3)]
    assert torch.equal(states[1], torch.Generator().manual_seed(1).get_state())
    assert not any(torch.equal(states[a], states[b]) for a, b in ((0, 1), (0, 2), (1, 2)))
