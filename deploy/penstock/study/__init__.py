"""The study file: reading it, overriding and checking it, and the wording of what is wrong with it."""

from penstock.study.errors import StudyError, problems_of
from penstock.study.file import STUDY, load_study, make_importable, read_toml, resolved, settings_of, write_resolved
from penstock.study.threads import SOLVER_ENVIRONMENT, ThreadBudget, cores_for_the_rest, plan_threads, quiet_waiting

__all__ = [
    "SOLVER_ENVIRONMENT",
    "STUDY",
    "StudyError",
    "ThreadBudget",
    "cores_for_the_rest",
    "load_study",
    "make_importable",
    "plan_threads",
    "problems_of",
    "quiet_waiting",
    "read_toml",
    "resolved",
    "settings_of",
    "write_resolved",
]
