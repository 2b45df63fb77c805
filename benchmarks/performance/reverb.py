"""DeepMind's Reverb, in an environment of its own: it wants TensorFlow 2.15."""

from __future__ import annotations

from collections.abc import Callable, Mapping

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

    def figures(which: str) -> Figures:
        if plan.reverb_python is None:
            raise CannotRun(f"no --reverb-python was given ({HOW})")
        script = FOLDER / "reverb_script.py"
        numbers = (job.elements, job.producers, job.producers * job.steps, job.batch)
        # The variable keeps protobuf's and TensorFlow's own versions apart from those of this environment.
        with Talker(
            [plan.reverb_python, script, *map(str, numbers)], {"PYTHONPATH": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
        ) as talker:
            found = talker.hear()
        return {"samples/s": found[which]}

    return {INSERT: lambda: figures("insert"), SAMPLE: lambda: figures("sample")}
