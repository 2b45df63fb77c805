"""The share of one trainer rank in the buffer and the batch, which the study file gives for all ranks together."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_client.block import SHARED_BLOCK
from penstock_server.buffer import capacity_in_samples
from penstock_server.study import SampleSpec, Study

SPARE = 64  # slots for samples of which pieces come one by one


@dataclass(frozen=True)
class BufferShare:
    """The buffer of one rank.

    Attributes:
        capacity: samples that it holds.
        watermark: samples that it needs before the first batch is drawn.
    """

    capacity: int
    watermark: int


def batch_share(study: Study, rank: int) -> int:
    """Return the number of samples that one rank draws for each batch.

    The shares of all ranks add up to [training] batch_size; where it does not divide, the first ranks take one sample
    more.

    Args:
        study: the whole study.
        rank: number of the rank.
    """
    ranks, batch = study.training.ranks, study.training.batch_size
    return batch // ranks + (rank < batch % ranks)


def buffer_share(study: Study, spec: SampleSpec | None, ranks_here: int | None = None) -> BufferShare:
    """Return one rank's share of the buffer, the same for each rank.

    Capacities are rounded up and watermarks down, so that one sample on each rank is enough to draw from.

    Args:
        study: the whole study.
        spec: shapes of a sample; None where they are not known yet: the capacity must then be given in samples.
        ranks_here: number of ranks on this machine, whose buffers must fit in its memory; None where all are.

    Raises:
        ValueError: when a sample does not fit in the capacity, or the buffers do not fit in the memory available.
    """
    ranks, asked = study.training.ranks, study.buffer.capacity
    if spec is not None:
        capacity = capacity_in_samples(asked, spec, ranks=ranks, ranks_here=ranks_here)
    elif isinstance(asked, int):
        capacity = asked
    else:
        raise ValueError(f"capacity = {asked!r}: the number of samples depends on the shapes of the fields")
    return BufferShare(-(-capacity // ranks), study.buffer.watermark // ranks)


def spare_slots(spec: SampleSpec) -> int:
    """Return the number of slots of the buffer for samples that are being filled.

    A message has room for many small samples, and each gets a slot.

    Args:
        spec: shapes of a sample.
    """
    return SPARE + SHARED_BLOCK // spec.bytes
