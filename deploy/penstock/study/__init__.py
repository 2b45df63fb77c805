"""The study file: reading, overriding and checking it, and the wording of its problems.

`penstock.study.check` is imported from its file: it needs torch.
"""

from penstock.study.errors import StudyError, problems_of
from penstock.study.file import (
    STUDY,
    is_file,
    load_study,
    make_importable,
    read_toml,
    resolved,
    settings_of,
    write_resolved,
)
from penstock.study.threads import (
    SOLVER_ENVIRONMENT,
    ThreadBudget,
    keep_off_training_cores,
    make_openmp_wait_passively,
    plan_threads,
)

__all__ = [
    "SOLVER_ENVIRONMENT",
    "STUDY",
    "StudyError",
    "ThreadBudget",
    "is_file",
    "keep_off_training_cores",
    "load_study",
    "make_importable",
    "make_openmp_wait_passively",
    "plan_threads",
    "problems_of",
    "read_toml",
    "resolved",
    "settings_of",
    "write_resolved",
]
