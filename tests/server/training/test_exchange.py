"""Trainer ranks send each other rows of numbers over their own connections."""

from __future__ import annotations

import json
import socket
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch.distributed as dist

from penstock_server.training.exchange import Exchange

HOST = "127.0.0.1"
SIZE = 3


def exchanges(strangers: int = 0) -> list[Exchange]:
    """The exchanges of all ranks; strangers connect before them."""
    store = dist.HashStore()  # type: ignore[attr-defined]
    with ThreadPoolExecutor(SIZE) as threads:
        first = threads.submit(Exchange, 0, SIZE, store, HOST)
        host, port, _ = json.loads(store.get("penstock/exchange"))
        for number in range(strangers):
            with socket.create_connection((host, port)) as stranger:
                stranger.sendall(bytes(20 if number else 3))
        others = [threads.submit(Exchange, rank, SIZE, store, HOST) for rank in range(1, SIZE)]
        return [one.result() for one in (first, *others)]


def test_all_ranks_get_the_rows_of_all_whoever_else_has_connected() -> None:
    ranks = exchanges(strangers=2)
    with ThreadPoolExecutor(SIZE) as threads:
        for step in range(20):
            rows = np.random.default_rng(step).random((SIZE, 8))
            for found in threads.map(lambda rank, row: rank.rows(row), ranks, rows):
                np.testing.assert_array_equal(found, rows)
    for rank in ranks:
        rank.close()


@pytest.mark.parametrize("gone", range(SIZE))
def test_a_rank_that_goes_sets_the_others_free(gone: int) -> None:
    ranks = exchanges()
    ranks[gone].close()

    def wait(rank: Exchange) -> str:
        try:
            rank.rows(np.ones(1))
        except OSError as error:
            return str(error)
        finally:
            rank.close()  # as a group does when it leaves
        return ""

    with ThreadPoolExecutor(SIZE) as threads:
        assert all(threads.map(wait, [rank for rank in ranks if rank is not ranks[gone]]))
