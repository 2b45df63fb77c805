"""What each trainer rank gets of a study's buffer and batch, which the study file gives for all ranks together."""

from __future__ import annotations

from dataclasses import dataclass

from penstock_server.buffer import capacity_in_samples
from penstock_server.study import SampleSpec, Study


@dataclass(frozen=True)
class Share:
    """Of one rank, in samples."""

    capacity: int
    watermark: int
    batch_size: int


def share_of(study: Study, spec: SampleSpec | None, rank: int) -> Share:
    """One rank's share. Capacities are rounded up and watermarks down, so that as few as one sample a rank can be drawn; the batches of all
    ranks add up to [training] batch_size, the first ranks taking one sample more where it does not divide.

    spec: None where it is not known yet; then the capacity must be given in samples.

    Raises ValueError where a sample does not fit in the capacity, or the buffers do not fit in the memory available.
    """
    ranks, batch = study.training.ranks, study.training.batch_size
    asked = study.buffer.capacity
    if spec is not None:
        capacity = capacity_in_samples(asked, spec, ranks=ranks)
    elif isinstance(asked, int):
        capacity = asked
    else:
        raise ValueError(f"capacity = {asked!r}: how many samples that is takes the fields' shapes")
    return Share(-(-capacity // ranks), study.buffer.watermark // ranks, batch // ranks + (rank < batch % ranks))
