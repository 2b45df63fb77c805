"""The first message of a trainer rank. The coordinator reads it and needs no torch, so this file imports none."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_server.engines.setup import RestoredState


@dataclass(frozen=True)
class RankStarted:
    """The message of a trainer rank whose sockets are open.

    Attributes:
        endpoint: address of its data socket.
        metrics: address of its metrics.
        meeting: host and port where rank 0 waits for the other ranks; None on other ranks, and where there is one rank.
        checkpoint: number of the checkpoint that it continues from; None without one.
        restored: what the checkpoint holds for the coordinator, with what has arrived at this rank; None without one.
        warnings: about checkpoints that were passed over.
    """

    endpoint: str
    metrics: str
    meeting: tuple[str, int] | None
    checkpoint: int | None
    restored: RestoredState | None
    warnings: tuple[str, ...]
