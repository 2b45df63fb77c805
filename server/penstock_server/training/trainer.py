"""One optimizer step on one batch, and predictions in raw units."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from penstock_client.errors import PenstockError
from penstock_server.study import Batch, ModelSection, SampleSpec, TrainingSection
from penstock_server.training.batch_norm import batch_normalisations, single_values_normalised
from penstock_server.training.batch_targets import BatchTargets
from penstock_server.training.clipping import clip_gradients
from penstock_server.training.device import resolve_device
from penstock_server.training.ensemble import make_members, mean_of_members, predict_each
from penstock_server.training.forward import Forward
from penstock_server.training.losses import make_loss
from penstock_server.training.normalisation import Affine, Normaliser
from penstock_server.training.optimizers import OptimizerError, make_optimizer, make_scheduler, restore_optimizer
from penstock_server.training.staging import Staging

GradientAverage = Callable[[list[nn.Parameter], int], None]
"""Replaces the gradients of all ranks by their mean, weighted by each rank's number of samples."""

_CHECK_EVERY = 50  # batches between two checks of the loss on a GPU: each waits for the device
_CHUNK_BYTES = 32 * 2**20  # of predictions on the device at a time


class TrainingDiverged(PenstockError):
    """The loss or a weight is NaN or infinite."""


class Trainer:
    """A model, its optimizer, scheduler and loss, on one device.

    The loss is computed in normalised units. With window > 1 the window is cut into bundles, and the model predicts
    each bundle from the true one before it (teacher forcing). With [training] pushforward = P, a number k from 0 to P
    is drawn for each batch, and the true bundle is replaced by the model's own prediction over k bundles, made without
    gradient: the pushforward trick of Brandstetter, Worrall and Welling 2022, Message Passing Neural PDE Solvers,
    section 3.1, by which the model learns to correct its own errors.

    The scheduler steps once a batch; one that knows its `total_steps` (OneCycleLR) keeps its last rate after them.
    Torch's global random state is seeded, for models that draw numbers.

    Args:
        spec: shapes of the samples.
        model: [model] of the study file.
        training: [training] of the study file.
        normaliser: statistics of the training samples; somebody else updates it.
        device: "auto" or a torch device.
        seed: of weights and random numbers.
        gradient_average: averages the gradients of several ranks between backward and the optimizer's step; None for
            one rank.

    Attributes:
        spec: as given.
        normaliser: as given.
        device: torch device of the model.
        members: number of models that are trained side by side.
        model: the torch module; with several members an `Ensemble`.
        optimizer: of torch.optim.
        scheduler: of torch.optim.lr_scheduler; None for a constant learning rate.
        loss: function of prediction and target, both of shape (n, width).
        batches: steps so far, those before a checkpoint included.

    Raises:
        ModelError: when the model cannot be made.
        OptimizerError: when optimizer or scheduler cannot be made, or the optimizer does not support several ranks.
        LossError: when the loss cannot be used.
        ImportPathError: when an import path leads to nothing.
        DeviceError: when torch does not find the device.
    """

    def __init__(
        self,
        spec: SampleSpec,
        model: ModelSection,
        training: TrainingSection,
        normaliser: Normaliser,
        *,
        device: str = "auto",
        seed: int = 0,
        gradient_average: GradientAverage | None = None,
    ) -> None:
        self.spec = spec
        self.normaliser = normaliser
        self.device = resolve_device(device)
        torch.manual_seed(seed)
        self.members = training.members
        self.model = make_members(model, spec, training, seed).to(self.device)
        self._parameters = [p for p in self.model.parameters() if p.requires_grad]
        self.optimizer = make_optimizer(training.optimizer, self._parameters)
        self.scheduler = make_scheduler(training.scheduler, self.optimizer)
        self.loss = make_loss(training.loss) if self.members == 1 else mean_of_members(training.loss)
        self.batches = 0
        self._normalisations = batch_normalisations(self.model)
        self._forward = Forward(self.model, self.device, training)
        self._targets = BatchTargets(normaliser.on_targets)
        self._training = training
        self._pushforward = training.pushforward
        self._gradient_average = gradient_average
        self._loss: Tensor | None = None
        self._affine: tuple[Affine, Affine] | None = None
        self._staging = None if self.device.type == "cpu" else Staging(self.device)
        self._check_every = 1 if self.device.type == "cpu" else _CHECK_EVERY
        needs_closure = (
            inspect.signature(type(self.optimizer).step).parameters["closure"].default is inspect.Parameter.empty
        )
        if needs_closure and gradient_average is not None:
            # Such an optimizer decides by the loss how often it evaluates, and each rank has its own loss.
            raise OptimizerError(
                f"[training] optimizer {type(self.optimizer).__name__} works on one rank only: "
                "set ranks = 1 or use another optimizer, such as adam"
            )

    def step(self, batch: Batch | None) -> None:
        """Train on one batch; returns before a GPU has finished.

        Args:
            batch: raw samples; may be overwritten once this has returned, pinned memory too. None on a rank that has no
                samples while others have: it takes part with a gradient of zero and so keeps the same weights as they.

        Raises:
            TrainingDiverged: when the loss is not finite; on a GPU this is noticed up to 50 batches late.
        """
        if batch is None:
            self._step(None)
        elif self._staging is None:
            self._step(batch)
        else:
            with self._staging.on_device(batch) as moved:
                self._step(moved)

    def shared_tensors(self) -> Iterator[Tensor]:
        """Yield the tensors that are equal on all ranks: the model's weights and buffers, not copied."""
        yield from self.model.parameters()
        yield from self.model.buffers()

    @property
    def warnings(self) -> list[str]:
        """For the report. Any thread may ask."""
        return self._forward.warnings

    @property
    def learning_rate(self) -> float:
        """Present learning rate of the first parameter group."""
        return float(self.optimizer.param_groups[0]["lr"])

    def last_loss(self) -> float | None:
        """Return the loss of the last batch in normalised units; None before the first.

        Waits for a GPU. May be called from any thread.
        """
        loss = self._loss
        return None if loss is None else float(loss)

    def predict(self, inputs: Tensor, state: Tensor | None = None) -> Tensor:
        """Predict in raw units, in the model's evaluation mode.

        Args:
            inputs: shape (n, n_inputs).
            state: with window > 1, the state before, shape (n, state_width).

        Returns:
            Targets, shape (n, width) or, with window > 1, (n, state_width); float32, on the CPU.
        """
        return torch.cat([rows.cpu() for rows in self.predict_chunks(inputs, state)])

    def predict_chunks(
        self, inputs: Tensor, state: Tensor | None = None, *, each_member: bool = False
    ) -> Iterator[Tensor]:
        """Predict as `predict` does, a bounded number of rows at a time.

        Args:
            inputs: shape (n, n_inputs).
            state: with window > 1, the state before, shape (n, state_width).
            each_member: whether to give the predictions of each member instead of their mean.

        Yields:
            Up to `chunk_rows` rows of targets, in order, on the device; for n = 0 one chunk without rows. With
            `each_member` the shape is (members, rows, width).
        """
        affine = self._device_affine()
        rows = self.chunk_rows
        self.model.eval()
        for start in range(0, max(1, len(inputs)), rows):
            with torch.no_grad():
                arguments = [affine.inputs(inputs[start : start + rows].to(self.device, torch.float32))]
                if state is not None:
                    arguments.append(affine.targets(state[start : start + rows].to(self.device, torch.float32)))
                rows_of = partial(predict_each, self.model) if each_member else self.model
                predicted = affine.raw_targets(rows_of(*arguments))
            # Outside no_grad, which otherwise would hold for the caller between two chunks.
            yield predicted

    @property
    def chunk_rows(self) -> int:
        """Rows that `predict_chunks` gives at a time."""
        return max(1, min(4096, _CHUNK_BYTES // (4 * self.spec.state_width * self.members)))

    def state_dict(self) -> dict[str, Any]:
        """Return weights, optimizer, scheduler and random state, for a checkpoint.

        Tensors are not copied: write them before the next step. The normaliser has its own state.

        Raises:
            TrainingDiverged: when the loss or a weight is not finite.
        """
        self._check_loss()
        self._check_weights()
        return {
            "batches": self.batches,
            "loss": self.last_loss(),
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": None if self.scheduler is None else _plain(self.scheduler.state_dict()),
            "torch_rng": torch.get_rng_state(),
            "cuda_rng": torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None,
        }

    def load_state_dict(self, state: dict[str, Any], trained_with: TrainingSection | None = None) -> str:
        """Continue from `state_dict`.

        Args:
            state: of a checkpoint.
            trained_with: [training] at the time of the checkpoint. Where it has another optimizer or scheduler, those
                of the present study are used; None where they are known to be the same.

        Returns:
            What of the optimizer's state could not be used; "" where all of it was.

        Raises:
            ValueError: when the state belongs to another optimizer.
            RuntimeError: when the state belongs to another model.
        """
        self.model.load_state_dict(state["model"])
        lost = restore_optimizer(self.optimizer, self.scheduler, state, trained_with or self._training, self._training)
        torch.set_rng_state(state["torch_rng"])
        if self.device.type == "cuda" and state["cuda_rng"] is not None:
            torch.cuda.set_rng_state(state["cuda_rng"], self.device)
        self.batches = int(state["batches"])
        self._loss = None if state["loss"] is None else torch.tensor(state["loss"], device=self.device)
        return lost

    def _step(self, batch: Batch | None) -> None:
        """Train on one batch that is on the device."""
        parts = [] if batch is None else batch.parts(self._training.accumulate)
        compiled = bool(parts) and self._forward.compiles(parts)

        def closure() -> Tensor:
            self.optimizer.zero_grad()
            loss = self._add_gradients(parts, compiled=compiled) if parts else torch.zeros((), device=self.device)
            if self._gradient_average is not None:
                for parameter in self._parameters:
                    if parameter.grad is None:  # no batch, or not used in it: all ranks must average the same list
                        parameter.grad = torch.zeros_like(parameter)
                self._gradient_average(self._parameters, 0 if batch is None else len(batch))
            if self._training.gradient_clip:
                clip_gradients(self.model, self._training.gradient_clip)
            return loss

        self.model.train()
        with single_values_normalised([] if compiled else self._normalisations):
            loss = self.optimizer.step(closure)  # type: ignore[arg-type]
        if batch is not None:
            self._loss = loss  # type: ignore[assignment]
        self.batches += 1
        if self.scheduler is not None and self.batches < getattr(self.scheduler, "total_steps", math.inf):
            self.scheduler.step()
        if self.batches % self._check_every == 0:
            self._check_loss()

    def _check_weights(self) -> None:
        """Check the weights: the loss is that before the last step, which may have made them NaN."""
        bad = next((n for n, p in self.model.named_parameters() if not bool(torch.isfinite(p).all())), None)
        if bad is not None:
            raise TrainingDiverged(
                f"the model's {bad} holds NaN or infinite numbers after batch {self.batches} with a learning rate of "
                f"{self.learning_rate:g}: expected finite weights; lower [training] optimizer lr, or resume from the last "
                "checkpoint"
            )

    def _check_loss(self) -> None:
        loss = self.last_loss()
        if loss is not None and not math.isfinite(loss):
            within = f"batch {self.batches}" if self._check_every == 1 else f"batches up to {self.batches}"
            raise TrainingDiverged(
                f"the loss is {loss} at {within} with a learning rate of {self.learning_rate:g}: expected a finite "
                "number; lower [training] optimizer lr, keep [normalisation] on, or resume from the last checkpoint"
            )

    def _add_gradients(self, parts: list[Batch], *, compiled: bool) -> Tensor:
        """Add the gradients of the parts of a batch, one after the other, and return the loss of all."""
        pushed = int(torch.randint(self._pushforward + 1, ())) if self._pushforward else 0
        samples = sum(len(part) for part in parts)
        losses = []
        for part in parts:
            loss = self._batch_loss(part, pushed, compiled=compiled)
            if len(parts) > 1:
                loss = loss * (len(part) / samples)
            # The sum over members, so that the learning rate of each is that of one model.
            (loss if self.members == 1 else self.members * loss).backward()  # type: ignore[no-untyped-call]
            losses.append(loss.detach())
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def _batch_loss(self, batch: Batch, pushed: int, *, compiled: bool) -> Tensor:
        affine = self._device_affine()
        inputs, targets = affine.inputs(batch.inputs), self._targets(affine, batch.targets)
        if self.spec.window == 1:
            return self.loss(self._forward(inputs[:, 0], compiled=compiled), targets[:, 0])
        bundle, width = self.spec.bundle, self.spec.state_width
        bundles = targets.reshape(len(targets), -1, width)
        inputs = inputs[:, ::bundle]  # the time of a bundle is that of its first time step
        number = bundles.shape[1]
        state = bundles[:, : number - 1 - pushed].reshape(-1, width)
        for step in range(1, pushed + 1):
            with torch.no_grad():
                rows = self._rows(inputs[:, step : number - 1 - pushed + step])
                state = self._forward(rows, state, compiled=compiled)
        prediction = self._forward(self._rows(inputs[:, 1 + pushed :]), state, compiled=compiled)
        return self.loss(prediction, bundles[:, 1 + pushed :].reshape(-1, width))

    def _rows(self, inputs: Tensor) -> Tensor:
        return inputs.reshape(-1, self.spec.n_inputs)

    def _device_affine(self) -> Affine:
        on_cpu = self.normaliser.affine()
        if self._affine is None or self._affine[0] is not on_cpu:
            self._affine = (on_cpu, on_cpu.to(self.device))
        return self._affine[1]


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """Return a scheduler's state without its functions (bound methods such as OneCycleLR's annealing function)."""
    return {k: v for k, v in state.items() if not callable(v)}
