"""How a checkpoint is divided among another number of trainer ranks than have written it.

Held-out time steps and the marks of the ledgers go to the rank that the clients of their simulation will send to from
now on, so that a repeated time step is recognised there. Samples, which no client repeats, are dealt out evenly. Counts
are divided so that their sums stay. Each rank takes what all have in common (weights, optimizer, schema, the
coordinator's state) as it is.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray

from penstock_server.buffer import BufferState
from penstock_server.checkpoint import Checkpoint
from penstock_server.ingest import Ledger
from penstock_server.study import SampleSpec
from penstock_server.training import merged_statistics
from penstock_server.validation import ValidationStore

ReadPart = Callable[[str], Any]
"""Returns a rank's part of a checkpoint, by name."""


def rank_of(simulation: int, step: int, ranks: int, *, pinned: bool) -> int:
    """Return the rank that clients send a time step to.

    Args:
        simulation: id of its simulation.
        step: index of the time step.
        ranks: number of ranks.
        pinned: whether all time steps of a simulation go to one rank, as windows need it; else they go to the ranks in
            turn.
    """
    return (simulation if pinned else simulation + step) % ranks


def parts_of(checkpoint: Checkpoint, rank: int, ranks: int, spec: SampleSpec, seed: int) -> ReadPart:
    """Return what one trainer rank continues from.

    Args:
        checkpoint: written by any number of ranks.
        rank: number of the rank.
        ranks: number of ranks from now on.
        spec: shapes of the samples.
        seed: the study's; ranks that the checkpoint does not have make their random numbers from it.

    Returns:
        A function that returns a part of the checkpoint for this rank, by name.
    """
    if checkpoint.ranks == ranks:
        return lambda name: _own(checkpoint, rank, name, seed)
    pinned = spec.window > 1

    def of_all(name: str) -> list[Any]:
        return [checkpoint.of_rank(r, name) for r in range(checkpoint.ranks)]

    def part(name: str) -> Any:
        if name == "buffer":
            fresh = np.random.default_rng([seed, rank, checkpoint.number]).bit_generator.state
            return _buffer(of_all(name), rank, ranks, fresh)
        if name == "ledger":
            return _ledgers(of_all(name), of_all("buffer"), rank, ranks, pinned=pinned)
        if name == "validation":
            return _validation(of_all(name), rank, ranks, spec)
        if name == "normaliser":
            states = of_all(name)
            own = merged_statistics(spec, [s["own"] for s in states] if rank == 0 else [])
            return {"own": own, "applied": states[0]["applied"], "follows_own": ranks == 1}
        if name == "clock":
            states = of_all(name)
            return {**states[0], "samples": _divided(sum(s["samples"] for s in states), rank, ranks)}
        if name == "counts":
            return _counts(of_all(name)) if rank == 0 else _counts([])
        return _own(checkpoint, rank, name, seed)

    return part


def _own(checkpoint: Checkpoint, rank: int, name: str, seed: int) -> Any:
    """Return a part as rank `rank` has written it; for what all ranks have in common, rank 0's."""
    if name != "trainer" or rank == 0:
        return checkpoint.of_rank(rank, name)
    # The same weights, and random numbers of its own.
    if rank < checkpoint.ranks:
        random = checkpoint.of_rank(rank, "random")
    else:
        random = {"torch_rng": torch.Generator().manual_seed(seed + rank).get_state(), "cuda_rng": None}
    return {**checkpoint.parts["trainer"], **random}


def _divided(total: float, rank: int, ranks: int) -> int:
    """Return one rank's share of a count; the shares add up to it."""
    return int(total) // ranks + (rank < int(total) % ranks)


def _counts(states: list[dict[str, Any]]) -> dict[str, Any]:
    refused: Counter[str] = sum((Counter(s["refused"]) for s in states), Counter())
    names = ("received", "duplicates", "bytes", "incomplete")
    return {**{name: sum(s[name] for s in states) for name in names}, "refused": dict(refused)}


def _buffer(states: list[BufferState], rank: int, ranks: int, fresh: Any) -> BufferState:
    """Return a buffer of every `ranks`-th sample, unseen ones first; fresh: state of a new random generator."""
    samples = [  # of each: number of its old buffer, row there, position in the order of arrival there (0 to 1)
        (number, row, order)
        for number, state in enumerate(states)
        for row, order in enumerate(_order_of_arrival(state["arrays"]["arrival"]))
    ]
    unseen = [sample for sample in samples if sample[1] < states[sample[0]]["meta"]["unseen"]]
    seen = [sample for sample in samples if sample[1] >= states[sample[0]]["meta"]["unseen"]]
    own = (unseen + seen)[rank::ranks]
    source = np.array([number for number, _, _ in own], dtype=np.int64)
    row = np.array([row for _, row, _ in own], dtype=np.int64)

    def rows_of(name: str) -> NDArray[Any]:
        first = states[0]["arrays"][name]
        out = np.empty((len(own), *first.shape[1:]), first.dtype)
        for number, state in enumerate(states):
            out[source == number] = state["arrays"][name][row[source == number]]
        return out

    left = np.zeros(max(len(s["arrays"]["times_seen_left"]) for s in states), dtype=np.int64)
    for state in states if rank == 0 else []:
        left[: len(state["arrays"]["times_seen_left"])] += state["arrays"]["times_seen_left"]
    metas = [state["meta"] for state in states]
    counters = {
        # Each rank draws in every step.
        name: max(m["counters"][name] for m in metas)
        if name == "batches"
        else _divided(sum(m["counters"][name] for m in metas), rank, ranks)
        for name in metas[0]["counters"]
    }
    names = ("inputs", "targets", "simulation", "sample", "times_seen")
    arrays = {name: rows_of(name) for name in names}
    arrays["times_seen_left"] = left
    arrays["arrival"] = np.argsort([order for _, _, order in own], kind="stable")
    meta = {
        "policy": metas[0]["policy"],
        "unseen": len(range(rank, len(unseen), ranks)),
        "counters": counters,
        "put_blocked_seconds": sum(m["put_blocked_seconds"] for m in metas) / ranks,
        "stall_seconds": sum(m["stall_seconds"] for m in metas) / len(metas),
        "rng": metas[rank]["rng"] if rank < len(metas) else fresh,
    }
    return {"arrays": arrays, "meta": meta}


def _order_of_arrival(arrival: NDArray[np.int64]) -> NDArray[np.float64]:
    order = np.empty(len(arrival))
    order[arrival] = np.arange(len(arrival)) / max(1, len(arrival))
    return order


def _ledgers(
    states: list[dict[str, Any]], buffers: list[BufferState], rank: int, ranks: int, *, pinned: bool
) -> dict[str, Any]:
    arrivals = [(b["arrays"]["simulation"], b["arrays"]["sample"]) for b in buffers]
    return {
        "trained": _ledger([s["trained"] for s in states], arrivals, rank, ranks, pinned=pinned),
        "validated": _ledger([s["validated"] for s in states], [], rank, ranks, pinned=pinned),
    }


def _ledger(
    states: list[dict[str, NDArray[Any]]],
    arrivals: list[tuple[NDArray[np.int64], NDArray[np.int64]]],
    rank: int,
    ranks: int,
    *,
    pinned: bool,
) -> dict[str, NDArray[Any]]:
    """Return the `Ledger.state_dict` of one rank's marks.

    Args:
        states: of all ledgers.
        arrivals: simulations and samples in each buffer; some came after its ledger was read.
        rank: number of the rank.
        ranks: number of ranks from now on.
        pinned: as in `rank_of`.
    """
    rows: dict[int, int] = {}  # a simulation's bits as one number
    for state in states:
        for simulation, row in _rows(state):
            rows[simulation] = rows.get(simulation, 0) | int.from_bytes(row, "little")
    ledger = Ledger()
    ledger.load_state_dict(
        _state({s: bits.to_bytes((bits.bit_length() + 7) // 8, "little") for s, bits in rows.items()})
    )
    for simulations, samples in arrivals:
        for simulation, sample in zip(simulations.tolist(), samples.tolist(), strict=True):
            ledger.mark(simulation, sample)
    everything = ledger.state_dict()
    longest = int(everything["lengths"].max(initial=0))
    turns = []
    for first in range(ranks):
        own_steps = np.zeros(8 * longest, np.uint8)
        own_steps[first::ranks] = 1
        turns.append(np.packbits(own_steps, bitorder="little"))
    kept = {}
    for simulation, row in _rows(everything):
        bits = np.frombuffer(row, np.uint8)
        if not pinned:
            kept[simulation] = (bits & turns[(rank - simulation) % ranks][: len(bits)]).tobytes()
        elif rank_of(simulation, 0, ranks, pinned=True) == rank:
            kept[simulation] = row
    return _state({simulation: row for simulation, row in kept.items() if any(row)})


def _rows(state: dict[str, NDArray[Any]]) -> Iterator[tuple[int, bytes]]:
    """Yield each simulation of a `Ledger.state_dict` and its bits."""
    data, ends = state["bits"].astype(np.uint8).tobytes(), np.cumsum(state["lengths"]).tolist()
    for simulation, length, end in zip(state["simulations"].tolist(), state["lengths"].tolist(), ends, strict=True):
        yield simulation, data[end - length : end]


def _state(rows: dict[int, bytes]) -> dict[str, NDArray[Any]]:
    """The inverse of `_rows`."""
    return {
        "simulations": np.array(list(rows), dtype=np.int64),
        "lengths": np.array([len(row) for row in rows.values()], dtype=np.int64),
        "bits": np.frombuffer(b"".join(rows.values()), dtype=np.uint8).copy(),
    }


def _validation(states: list[dict[str, Any]], rank: int, ranks: int, spec: SampleSpec) -> dict[str, Any]:
    own, old = ValidationStore(spec), ValidationStore(spec)
    for state in states:
        old.load_state_dict(state)
        for simulation, step in cast(list[tuple[int, int]], state["keys"].tolist()):
            if rank_of(simulation, step, ranks, pinned=spec.window > 1) == rank:
                own.add(simulation, step, *old.time_step(simulation, step))
    return own.state_dict()
