"""A process that joins a group of trainer ranks and does one thing with it; run by `test_rank_group.py` and `test_common_step.py`.

    group_worker.py RANK SIZE PORT WHAT [ARGUMENTS...]

Rank 0 makes the meeting point and prints its port; the result is printed as the last line, in JSON.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from penstock_server.buffer import Buffer
from penstock_server.checkpoint import write_checkpoint
from penstock_server.study import FieldSpec, SampleSpec
from penstock_server.trainer_rank.common_step import CommonStep
from penstock_server.training import MeetingPoint, PeersLost, RankGroup, gradients

HOST = "127.0.0.1"
SPEC = SampleSpec(("a",), (FieldSpec("T", 1, (2,)),))


def everything(group: RankGroup) -> Any:
    """One call of each kind."""
    model = nn.Linear(2, 1)
    spectral = nn.Parameter(torch.full((2,), complex(group.rank, 1.0)))
    parameters = [*model.parameters(), spectral]
    for parameter in parameters:
        parameter.grad = torch.full_like(parameter, float(group.rank + 1))
    group.average(parameters, samples=group.rank)  # rank 0 has none
    weights = torch.tensor([float(group.rank)])
    group.broadcast([weights])
    return {
        "sum": group.sum([1.0, group.rank, 0.5]).tolist(),
        "gather": [rows.tolist() for rows in group.gather(np.full((group.rank, 2), float(group.rank)))],
        "nothing": [rows.shape for rows in group.gather(np.empty((0, 3)))],
        "text": group.gather_text(f"rank {group.rank}: é"),
        "gradients": [float(p.grad.real.reshape(-1)[0]) for p in parameters if p.grad is not None],
        "shared": weights.tolist(),
    }


def wait_for_ever(group: RankGroup) -> Any:
    """Sum again and again, until another rank is gone."""
    print("waiting", flush=True)
    try:
        while True:
            group.sum([1.0])
    except PeersLost as lost:
        return str(lost)


def leave_early(group: RankGroup) -> Any:
    """Rank 0 leaves after one step, as one whose training has failed; the others go on."""
    group.sum([1.0])
    if group.rank == 0:
        return "left"
    return wait_for_ever(group)


def streams(group: RankGroup, arguments: list[str]) -> Any:
    """Steps on a buffer that a stream of its own fills: so many samples, at so many seconds' distance."""
    policy, capacity, *per_rank = arguments
    number, pause = int(per_rank[2 * group.rank]), float(per_rank[2 * group.rank + 1])
    buffer = Buffer(SPEC, policy=policy, capacity=int(capacity), watermark=0, batch_size=2, seed=group.rank)  # type: ignore[arg-type]

    def produce() -> None:
        for sample in range(number):
            time.sleep(pause)
            slot = buffer.reserve()
            slot.inputs[:], slot.targets[:] = 0.0, 0.0
            slot.simulation, slot.sample = 0, sample
            buffer.commit(slot)
        buffer.end_production()

    threading.Thread(target=produce, daemon=True).start()
    steps = CommonStep(
        group,
        buffer,
        2,
        ending=lambda: False,
        log_due=lambda: False,
        checkpoint_due=lambda: False,
        rows_seen=lambda: 1.0,
    )
    made = without = 0
    while (step := steps.next()) is not None:
        group.sum([1.0])  # the step itself: whoever is missing here would hang the others
        made += 1
        without += step.batch is None
    return {"steps": made, "without": without, "trained": buffer.stats().trained_unique}


def end_of_one(group: RankGroup, arguments: list[str]) -> Any:
    """Rank 0 wants to end after some steps, while all ranks could draw batches for ever."""
    buffer = Buffer(SPEC, policy="reservoir", capacity=10, watermark=0, batch_size=2, seed=group.rank)
    for sample in range(5):
        slot = buffer.reserve()
        slot.inputs[:], slot.targets[:] = 0.0, 0.0
        slot.simulation, slot.sample = 0, sample
        buffer.commit(slot)
    made = 0
    steps = CommonStep(
        group,
        buffer,
        2,
        ending=lambda: group.rank == 0 and made >= int(arguments[0]),
        log_due=lambda: False,
        checkpoint_due=lambda: False,
        rows_seen=lambda: 1.0,
    )
    while (step := steps.next()) is not None:
        made += 1
        assert step.batch is not None or group.rank == 0
    return {"steps": made, "presentations": buffer.stats().presentations}


def apart(group: RankGroup) -> Any:
    """Everything, as if each rank ran on a machine of its own."""
    gradients.boot_id = lambda: bytes([group.rank])  # type: ignore[attr-defined]
    return everything(group)


def uneven_gradients(group: RankGroup, arguments: list[str]) -> Any:
    """Means of gradients of several shapes and dtypes, step after step, and how much memory is left in common."""
    shapes = [(70_000,), (3, 1), (2, 5, 2)]
    parameters = [nn.Parameter(torch.zeros(shape)) for shape in shapes]
    parameters.append(nn.Parameter(torch.zeros(3, dtype=torch.float64)))
    worst = 0.0
    for step in range(int(arguments[0])):
        generator = torch.Generator().manual_seed(step)
        of_ranks = [
            [torch.randn(p.shape, generator=generator, dtype=p.dtype) for p in parameters] for _ in range(group.size)
        ]
        samples = [(step + rank) % group.size for rank in range(group.size)]  # one rank has none
        for parameter, gradient in zip(parameters, of_ranks[group.rank], strict=True):
            parameter.grad = gradient
        group.average(parameters, samples[group.rank])
        for number, parameter in enumerate(parameters):
            mean = sum(n * of[number].double() for n, of in zip(samples, of_ranks, strict=True)) / sum(samples)
            assert parameter.grad is not None
            assert isinstance(mean, torch.Tensor)
            worst = max(worst, float((parameter.grad - mean).abs().max()))
            parameter.grad.mul_(group.rank + 2.0)  # as clipping does; it is no business of the other ranks
    maps = Path("/proc/self/maps").read_text()
    return {"worst": worst, "common": maps.count("penstock-gradients")}


def checkpoint(group: RankGroup, arguments: list[str]) -> Any:
    """Write a checkpoint together, each rank with a number of its own."""
    return str(write_checkpoint(Path(arguments[0]), 5 + group.rank, {"own": {"rank": group.rank}}, group=group))


def main() -> None:
    rank, size, port, what, *arguments = sys.argv[1:]
    group = RankGroup(int(rank), int(size))
    meeting: MeetingPoint | tuple[str, int] = (HOST, int(port))
    if group.rank == 0:
        meeting = MeetingPoint(HOST, group.size)
        print(meeting.address[1], flush=True)
    group.join(meeting, HOST)
    with_arguments = {"streams": streams, "checkpoint": checkpoint, "end": end_of_one, "gradients": uneven_gradients}
    if what in with_arguments:
        result = with_arguments[what](group, arguments)
    else:
        result = {"everything": everything, "apart": apart, "wait": wait_for_ever, "leave": leave_early}[what](group)
    group.leave()
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
