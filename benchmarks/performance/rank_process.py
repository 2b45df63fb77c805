"""One rank of a group that only agrees: `python -m performance.rank_process RANK SIZE WEIGHTS BARE [ADDRESS]`."""

from __future__ import annotations

import json
import statistics
import sys
import time
from collections.abc import Callable

from performance.processes import tell

HOST = "127.0.0.1"
CALLS, WARM = 200, 20


def main() -> None:
    """Run from the command line."""
    rank, size, weights, bare = map(int, sys.argv[1:5])
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
        host, port = json.loads(sys.argv[5])
        group.join((host, port), HOST)
    call: Callable[[], object]
    if weights:
        parameter = torch.nn.Parameter(torch.zeros(weights))
        parameter.grad = torch.ones(weights)
        flat = torch.ones(weights + 1)
        call = (lambda: dist.all_reduce(flat)) if bare else (lambda: group.average([parameter], 32))
    else:
        row = torch.ones(8, dtype=torch.float64)
        votes = (True, False, False, False, False, True, False, 1000.0)  # as many as before each step
        call = (lambda: dist.all_reduce(row)) if bare else (lambda: group.sum(votes))
    seconds = []
    for number in range(WARM + CALLS):
        begun = time.perf_counter()
        call()
        if number >= WARM:
            seconds.append(time.perf_counter() - begun)
    tell(milliseconds=1000 * statistics.median(seconds))
    group.leave()


if __name__ == "__main__":
    main()
