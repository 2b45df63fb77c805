"""The study: the sections of its file, its parameter space, and the shape of its samples."""

from penstock_server.study.batch_memory import BatchMemory
from penstock_server.study.changes import (
    StudyChanged,
    changeable,
    changeable_keys,
    expect_same_study,
    study_state,
)
from penstock_server.study.config import Study
from penstock_server.study.data import FieldSection, SamplesSection
from penstock_server.study.import_path import ImportPathError, load_import_path
from penstock_server.study.parameters import ParameterSpace, ParametersSection
from penstock_server.study.samples import MAX_STEPS, Batch, FieldSpec, SampleSpec, sampled_steps, windows_in
from penstock_server.study.schema import STATIC_FIELDS, Schema, agree
from penstock_server.study.section import Bytes, Seconds, Section, parse_bytes
from penstock_server.study.solver import SolverSection
from penstock_server.study.timeouts import TimeoutsSection
from penstock_server.study.training import ModelSection, NamedOptions, TrainingSection

__all__ = [
    "MAX_STEPS",
    "STATIC_FIELDS",
    "Batch",
    "BatchMemory",
    "Bytes",
    "FieldSection",
    "FieldSpec",
    "ImportPathError",
    "ModelSection",
    "NamedOptions",
    "ParameterSpace",
    "ParametersSection",
    "SampleSpec",
    "SamplesSection",
    "Schema",
    "Seconds",
    "Section",
    "SolverSection",
    "Study",
    "StudyChanged",
    "TimeoutsSection",
    "TrainingSection",
    "agree",
    "changeable",
    "changeable_keys",
    "expect_same_study",
    "load_import_path",
    "parse_bytes",
    "sampled_steps",
    "study_state",
    "windows_in",
]
