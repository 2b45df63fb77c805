"""DeepMind's Reverb, in an environment of its own: it wants TensorFlow 2.15."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from performance.job import Job
from performance.pairs import CannotRun, Figures
from performance.plan import Plan
from performance.processes import FOLDER, Talker

INSERT, SAMPLE = "Reverb, inserts", "Reverb, samples drawn"
HOW = (
    "python3.11 -m venv ~/.cache/penstock/reverb && ~/.cache/penstock/reverb/bin/pip install dm-reverb==0.14.0 "
    "tensorflow-cpu==2.15.1, then --reverb-python ~/.cache/penstock/reverb/bin/python"
)


def things(plan: Plan, job: Job) -> Mapping[str, Callable[[], Figures]]:
    """Return the measurements of inserting the time steps of a job, and of drawing batches from the full table."""
    # One run measures both; the other thing of the same round takes its figure from here.
    left: dict[str, float] = {}

    def figures(which: str) -> Figures:
        if which not in left:
            left.update(_run(plan, job))
        return {"samples/s": left.pop(which)}

    return {INSERT: partial(figures, "insert"), SAMPLE: partial(figures, "sample")}


def _run(plan: Plan, job: Job) -> dict[str, float]:
    if plan.reverb_python is None:
        raise CannotRun(f"no --reverb-python was given ({HOW})")
    numbers = (job.elements, job.producers, job.producers * job.steps, job.batch)
    command = [plan.reverb_python, FOLDER / "reverb_script.py", *map(str, numbers)]
    # That Python must not find the packages of this one.
    with Talker(command, {"PYTHONPATH": "", "TF_CPP_MIN_LOG_LEVEL": "3"}) as talker:
        found: dict[str, float] = talker.hear()
    return found
