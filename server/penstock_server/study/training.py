"""[model] and [training]: what learns, how, and until when."""

from __future__ import annotations

from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from penstock_server.study.section import Seconds, Section


class ModelSection(BaseModel):
    """[model]: a registered model or "package.module:Class"; every other key is passed to it.

    Attributes:
        name: name of the registered model, or import path.
    """

    model_config = ConfigDict(extra="allow", frozen=True, protected_namespaces=())

    name: str = "mlp"

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of the model."""
        return dict(self.model_extra or {})


class NamedOptions(BaseModel):
    """A torch class by name with its keyword arguments, such as { name = "adam", lr = 1e-3 }.

    Attributes:
        name: name of the class, in any case.
    """

    model_config = ConfigDict(extra="allow", frozen=True)

    name: str

    @property
    def options(self) -> dict[str, Any]:
        """Keyword arguments of the class."""
        return dict(self.model_extra or {})


class TrainingSection(Section):
    """[training]: how the model learns and when training stops.

    Training ends when production has ended and the buffer has drained, or earlier at `max_batches`, `target_error` or
    `wall_time`.

    The number of ranks changes neither the batch nor the learning rate: `batch_size` is that of all ranks together, and
    the gradient is the mean over all of it. It does change the random draws (each rank draws from its own buffer and
    takes its own number of pushforward steps), with uneven streams how often samples are drawn (those of a rank that
    receives fewer more often), and batch normalisation, which sees one rank's share of the batch.

    Attributes:
        batch_size: samples of one batch, over all ranks.
        optimizer: class of torch.optim.
        scheduler: class of torch.optim.lr_scheduler, stepped once a batch; None for a constant learning rate.
        gradient_clip: largest norm of the gradient of all weights together (of each member's, in an ensemble); longer ones
            are shortened to it. 0 for no limit.
        accumulate: parts into which a rank cuts its share of a batch; their gradients are added up before the optimizer's
            one step, so that memory is needed for one part at a time.
        precision: "float32", or "bfloat16" for the matrix products of training (torch.autocast); weights, loss,
            validation and export stay float32.
        compile: whether training uses torch.compile.
        loss: "mse", "l1", "relative_l2" or "package.module:function".
        ranks: processes that train one model, each with its own device, buffer and connections.
        device: "auto", "cpu", "cuda" or another torch device.
        threads: CPU threads of training; "auto" for the cores that solvers leave free.
        own_cores: whether solvers and receiving are kept off the cores of these threads.
        max_batches: stop after so many batches; None for no such limit.
        min_batches: after production has ended, go on drawing from the buffer until so many batches are done.
        target_error: stop at this relative L2 error on held-out samples; None for no such limit.
        wall_time: stop after so many seconds; None for no such limit.
        validate_every: batches between two validations.
        checkpoint_every: seconds between two checkpoints.
        checkpoints_kept: number of checkpoints that are kept.
        pushforward: with window > 1, largest number of the model's own steps, without gradient, before each step that
            is trained on (Brandstetter et al. 2022, section 3.1).
        members: models of one kind with different weights that are trained side by side on the same batches; their
            mean is the prediction, their standard deviation its spread.
        source: HDF5 file of `penstock record` to train on instead of a stream; None to train on the stream.
        epochs: with `source`, passes over the file; None for as many as `max_batches` takes, or one.
        loader_workers: with `source`, processes that read the file.
    """

    batch_size: int = Field(32, gt=0)
    optimizer: NamedOptions = NamedOptions(name="adam", lr=1e-3)
    scheduler: NamedOptions | None = None
    gradient_clip: float = Field(0.0, ge=0, allow_inf_nan=False)
    accumulate: int = Field(1, gt=0)
    precision: Literal["float32", "bfloat16"] = "float32"
    compile: bool = False
    loss: str = "mse"
    ranks: int = Field(1, gt=0)
    device: str = "auto"
    threads: int | Literal["auto"] = "auto"
    own_cores: bool = False
    max_batches: int | None = Field(None, gt=0)
    min_batches: int = Field(0, ge=0)
    target_error: float | None = Field(None, gt=0)
    wall_time: Seconds | None = None
    validate_every: int = Field(200, gt=0)
    checkpoint_every: Seconds = 60.0
    checkpoints_kept: int = Field(2, gt=0)
    pushforward: int = Field(0, ge=0)
    members: int = Field(1, gt=0, le=64)
    source: str | None = None
    epochs: int | None = Field(None, gt=0)
    loader_workers: int = Field(1, ge=0)

    @model_validator(mode="after")
    def _bounds(self) -> TrainingSection:
        if self.max_batches is not None and self.min_batches > self.max_batches:
            raise ValueError(
                f"min_batches = {self.min_batches} is above max_batches = {self.max_batches}: lower one of them"
            )
        share = max(1, self.batch_size // self.ranks)
        if self.accumulate > share:
            raise ValueError(
                f"accumulate = {self.accumulate} is above the {share} samples that a rank has of a batch "
                f"(batch_size = {self.batch_size}, ranks = {self.ranks}): lower accumulate or raise batch_size"
            )
        return self
