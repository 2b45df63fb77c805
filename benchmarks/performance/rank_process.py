"""One rank of a group that only agrees: `python -m performance.rank_process RANK SIZE ROUNDS [ADDRESS]`."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable

from performance.processes import tell

HOST = "127.0.0.1"
CALLS, WARM = 100, 10
OPERATIONS = {
    "a vote": 0,
    "average of the gradients of 10,000 weights": 10_000,
    "average of the gradients of 1 million weights": 1_000_000,
}
"""What the ranks do together, and of how many weights."""


def main() -> None:
    """Run from the command line."""
    rank, size, rounds = map(int, sys.argv[1:4])
    from penstock.study import make_openmp_wait_passively

    make_openmp_wait_passively()
    import torch
    import torch.distributed as dist

    from penstock_server.training.group import MeetingPoint, RankGroup

    torch.set_num_threads(1)
    group = RankGroup(rank, size)
    if rank == 0:
        meeting = MeetingPoint(HOST, size)
        tell(address=meeting.address)
        group.join(meeting, HOST)
    else:
        host, port = json.loads(sys.argv[4])
        group.join((host, port), HOST)

    def calls(weights: int) -> dict[str, Callable[[], object]]:
        if not weights:
            row = torch.ones(8, dtype=torch.float64)
            votes = (True, False, False, False, False, True, False, 1000.0)  # as many as before each step
            return {"group": lambda: group.sum(votes), "bare": lambda: dist.all_reduce(row)}
        parameter = torch.nn.Parameter(torch.zeros(weights))
        parameter.grad = torch.ones(weights)
        flat = torch.ones(weights + 1)
        return {"group": lambda: group.average([parameter], 32), "bare": lambda: dist.all_reduce(flat)}

    found = {}
    for name, weights in OPERATIONS.items():
        both = calls(weights)
        times: dict[str, list[float]] = {thing: [] for thing in both}
        for _ in range(rounds):
            for thing, call in both.items():
                times[thing].append(milliseconds(call))
        found[name] = times
    tell(**found)
    group.leave()


def milliseconds(call: Callable[[], object]) -> float:
    """Return the median time of a call."""
    seconds = []
    for number in range(WARM + CALLS):
        begun = time.perf_counter()
        call()
        if number >= WARM:
            seconds.append(time.perf_counter() - begun)
    return 1000 * statistics.median(seconds)


if __name__ == "__main__":
    main()
