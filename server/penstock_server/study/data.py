"""[fields], [samples], [buffer] and [normalisation]: the data that are streamed and trained on."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, model_validator

from penstock_client.piece import MAX_DIMENSIONS
from penstock_server.study.section import Bytes, Section, parse_bytes


class FieldSection(Section):
    """One of [fields]: a field that is streamed and learnt.

    Attributes:
        components: 1 for a scalar, 3 for a vector, 6 and 9 for symmetric and full tensors; None to take it from the
            first client that announces the field.
        shape: spatial shape, row-major; None likewise.
        reference: subtracted in float64 from every value that arrives, before it is stored as float32; the model learns
            the difference.
    """

    components: int | None = Field(None, gt=0)
    shape: tuple[Annotated[int, Field(gt=0)], ...] | None = Field(None, min_length=1, max_length=MAX_DIMENSIONS)
    reference: float = Field(0.0, allow_inf_nan=False)


class SamplesSection(Section):
    """[samples]: what the model trains on.

    Attributes:
        window: consecutive time steps in a sample; with 1 the model maps parameters and time to fields.
        bundle: with window > 1, number of time steps that the model takes and gives at once.
        stride: time steps between the starts of two windows.
        time: time that the model sees, "step" for the number of the time step, "physical" for the solver's time.
    """

    window: int = Field(1, gt=0)
    bundle: int = Field(1, gt=0)
    stride: int = Field(1, gt=0)
    time: Literal["step", "physical"] = "step"

    @model_validator(mode="after")
    def _whole_bundles(self) -> SamplesSection:
        if self.bundle > 1 and (self.window % self.bundle or self.window < 2 * self.bundle):
            raise ValueError(
                f"window = {self.window} with bundle = {self.bundle}: expected a window of two or more whole bundles; "
                f"set window = {2 * self.bundle}"
            )
        return self


class BufferSection(Section):
    """[buffer]: the buffers of all trainer ranks together; each rank has an equal share (SC 2023, section 3).

    Attributes:
        policy: "fifo", "firo" or "reservoir"; see `penstock_server.buffer.policies`.
        capacity: number of samples, or a size such as "8 GiB".
        storage: "host", or "device" to keep the samples in the memory of the device that trains, and gather batches there.
        watermark: population above which training may draw.
        presentations_per_sample: producers wait until training has drawn this many samples for each sample received;
            0 for no such limit.
        credit: bytes that one client may have in flight.
    """

    policy: Literal["fifo", "firo", "reservoir"] = "reservoir"
    capacity: int | str = 2000
    storage: Literal["host", "device"] = "host"
    watermark: int = Field(0, ge=0)
    presentations_per_sample: float = Field(0.0, ge=0, allow_inf_nan=False)
    credit: Bytes = 8 * 2**20

    @model_validator(mode="after")
    def _consistent(self) -> BufferSection:
        if isinstance(self.capacity, int):
            if self.capacity <= 0:
                raise ValueError(f"capacity = {self.capacity}: expected at least 1 sample")
            if self.watermark >= self.capacity:
                raise ValueError(
                    f"watermark = {self.watermark} with capacity = {self.capacity}: expected watermark < capacity, "
                    "or training would never start"
                )
        else:
            try:
                number = parse_bytes(self.capacity)
            except ValueError:
                number = None
            if not isinstance(number, int) or number <= 0:
                raise ValueError(f'capacity = {self.capacity!r}: expected samples (2000) or a size ("8 GiB")')
        return self


class NormalisationSection(Section):
    """[normalisation]: streaming mean and standard deviation (Welford), per input and per field component.

    Attributes:
        inputs: whether parameters and time are normalised.
        targets: whether fields are normalised.
    """

    inputs: bool = True
    targets: bool = True
