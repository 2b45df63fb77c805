"""The study as a whole: its sections, and the conditions that hold between them.

Reading the study file, overrides and the wording of errors are in `penstock.study.file`; this room has the keys, their
types, defaults and conditions. Sizes and times may be written with units ("8 GiB", "60 s"); they are held in bytes and
seconds.
"""

from __future__ import annotations

import re
from typing import Literal

from pydantic import Field, field_validator, model_validator

from penstock_server.study.data import BufferSection, FieldSection, NormalisationSection, SamplesSection
from penstock_server.study.parameters import ParametersSection
from penstock_server.study.section import Section
from penstock_server.study.server import ServerSection
from penstock_server.study.solver import SolverSection
from penstock_server.study.timeouts import TimeoutsSection
from penstock_server.study.training import ModelSection, TrainingSection

FIELD_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.:+()-]{0,127}")
"""Names of fields: they become names of files and datasets."""

RESERVED = ("self", "step", "time", "offset", "indices")
"""Arguments of a Python client's send and announce."""


class StudySection(Section):
    """[study]: name, seed and engine.

    Attributes:
        name: letters, digits and _ . - only; it names metrics and the default run directory.
        seed: seed of the parameters' points, the model's weights and the draws from the buffer.
        engine: "ray" for actors, "inline" for one process with bit-for-bit reproducible weights.
    """

    name: str = Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,127}$")
    seed: int = Field(0, ge=0, lt=2**63)  # as large as TOML and torch allow
    engine: Literal["ray", "inline"] = "ray"


class Study(Section):
    """A whole study file.

    Attributes:
        study: [study].
        parameters: [parameters].
        solver: [solver].
        fields: field name to its section.
        samples: [samples].
        buffer: [buffer].
        normalisation: [normalisation].
        model: [model].
        training: [training].
        server: [server].
        timeouts: [timeouts].
        directory: folder of the study file, where relative paths in it start; not a key of the file.
    """

    study: StudySection
    parameters: ParametersSection
    solver: SolverSection
    fields: dict[str, FieldSection] = Field(min_length=1)
    samples: SamplesSection = SamplesSection()
    buffer: BufferSection = BufferSection()
    normalisation: NormalisationSection = NormalisationSection()
    model: ModelSection = ModelSection()
    training: TrainingSection = TrainingSection()
    server: ServerSection = ServerSection()
    timeouts: TimeoutsSection = TimeoutsSection()
    directory: str = Field(".", exclude=True)

    @field_validator("fields")
    @classmethod
    def _usable_names(cls, fields: dict[str, FieldSection]) -> dict[str, FieldSection]:
        for name in fields:
            if name in RESERVED:
                raise ValueError(
                    f"{name!r} cannot be the name of a field, since send() has an argument of this name; rename it"
                )
            if not FIELD_NAME.fullmatch(name):
                raise ValueError(
                    f"{name!r} is not a usable field name: expected a letter or _, then letters, digits and "
                    "_ . : + - ( ) only"
                )
        return fields

    @model_validator(mode="after")
    def _fit_together(self) -> Study:
        blocks = self.samples.window // self.samples.bundle
        if self.training.pushforward > max(0, blocks - 2):
            raise ValueError(
                f"training.pushforward = {self.training.pushforward} with samples.window = {self.samples.window} and "
                f"samples.bundle = {self.samples.bundle}: expected a window of pushforward + 2 bundles; "
                f"set samples.window = {(self.training.pushforward + 2) * self.samples.bundle}"
            )
        if self.parameters.seeds and self.samples.window == 1:
            raise ValueError(
                f'parameters.{self.parameters.seeds[0]} = "seed" with samples.window = 1: a model cannot know which '
                "field a seed stands for; set samples.window = 2, so that it sees the time step before"
            )
        if self.training.epochs is not None and self.training.source is None:
            raise ValueError(
                'training.epochs is for training.source = "data.h5"; give both, or max_batches for a stream'
            )
        return self
