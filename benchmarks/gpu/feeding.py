"""How a GPU is fed: bandwidths, batches from the host and from the device, and what training waits for them."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial
from statistics import median
from typing import Any

import numpy as np
import torch

from penstock_server.buffer import Buffer, DeviceStorage, Storage, StorageMaker
from penstock_server.study import Batch, FieldSpec, ModelSection, NamedOptions, SampleSpec, TrainingSection
from penstock_server.training import Normaliser, Trainer
from penstock_server.training.staging import Staging

PARAMETERS = ("initial", "left", "right", "bottom", "top")
ROUNDS = 5


def sample_spec(device: torch.device) -> SampleSpec:
    """Return samples of 400 KB; smaller ones to try the script on a CPU."""
    return SampleSpec(PARAMETERS, (FieldSpec("T", 1, (100_000 if device.type == "cuda" else 1_000,)),))


def seconds(work: Callable[[], object], device: torch.device, repeat: int) -> float:
    """Return the time of one call of `work` out of so many, until the device has finished."""
    module = torch.get_device_module(device)
    work()
    module.synchronize()
    begun = time.perf_counter()
    for _ in range(repeat):
        work()
    module.synchronize()
    return (time.perf_counter() - begun) / repeat


def bandwidth(device: torch.device) -> dict[str, Any]:
    """Measure copies within the device (bytes read and written) and from page-locked memory of the host, in GB/s."""
    number = 2**28 if device.type == "cuda" else 2**22
    here, there = torch.empty(number, device=device), torch.empty(number, device=device)
    host = torch.empty(number, pin_memory=device.type == "cuda")
    within = [seconds(lambda: there.copy_(here), device, 10) for _ in range(ROUNDS)]
    from_host = [seconds(lambda: there.copy_(host, non_blocking=True), device, 5) for _ in range(ROUNDS)]
    gigabytes = number * 4 / 1e9
    return {"within_device": 2 * gigabytes / median(within), "host_to_device": gigabytes / median(from_host)}


def filled(storage: str, device: torch.device, batch_size: int) -> Buffer:
    """Return a full reservoir of 2,000 samples."""
    spec = sample_spec(device)
    make: StorageMaker = partial(Storage, pin=device.type == "cuda")
    if storage == "device":
        make = partial(DeviceStorage, device=device)
    buffer = Buffer(spec, policy="reservoir", capacity=2000, watermark=0, batch_size=batch_size, storage=make)
    rng = np.random.default_rng(0)
    for number in range(2000):
        put(buffer, number, rng.random(spec.width, dtype=np.float32))
    return buffer


def put(buffer: Buffer, number: int, field: Any) -> bool:
    """Put a sample; False once the buffer is closed."""
    slot = buffer.reserve()
    slot.inputs[:], slot.targets[:] = (number % 97) / 97, field
    slot.simulation, slot.sample = 0, number
    return buffer.commit(slot)


def batches(device: torch.device) -> dict[str, Any]:
    """Measure batches of 64 on the device, drawn from storage there and from page-locked batches of the host, in turn."""
    buffers = {storage: filled(storage, device, 64) for storage in ("host", "device")}
    staging = Staging(device)
    size = buffers["host"].spec.bytes
    copies = bandwidth(device)

    def draw(storage: str) -> None:
        batch = buffers[storage].get(64)
        assert batch is not None
        with staging.on_device(batch):
            pass

    times: dict[str, list[float]] = {storage: [] for storage in buffers}
    for _ in range(ROUNDS):
        for storage, own in times.items():
            own.append(seconds(lambda storage=storage: draw(storage), device, 50))  # type: ignore[misc]
    rates = {storage: 64 / median(own) for storage, own in times.items()}
    return {
        "sample_bytes": size,
        "batch": 64,
        "samples_per_second": rates,
        "spread": {storage: (max(own) - min(own)) / median(own) for storage, own in times.items()},
        "device_to_host": rates["device"] / rates["host"],
        "share_of_bandwidth": {  # a gather reads and writes each byte
            "device": 2 * rates["device"] * size / 1e9 / copies["within_device"],
            "host": rates["host"] * size / 1e9 / copies["host_to_device"],
        },
    }


def stall(device: torch.device) -> dict[str, Any]:
    """Measure the share of a step in which the device waits for its batch, while samples arrive.

    The model is that of the laptop protocol. The share is 1 - (time of a step on one batch that stays on the device) /
    (time of a step on batches from the buffer); the two are run in turn.
    """
    rows = []
    for batch_size in (10, 64):
        trainer = laptop_trainer(device)
        for storage in ("host", "device"):
            for arriving in (0, 100, 1000):
                rows.append(
                    {"batch": batch_size, "storage": storage, "arriving_per_second": arriving}
                    | _stall(trainer, filled(storage, device, batch_size), batch_size, arriving)
                )
    return {"model": "mlp, hidden = [256, 256]", "sample_bytes": sample_spec(device).bytes, "rows": rows}


def laptop_trainer(device: torch.device) -> Trainer:
    """Return the trainer of benchmarks/laptop_protocol/study.toml."""
    spec = sample_spec(device)
    training = TrainingSection(optimizer=NamedOptions(name="adam", lr=1e-3, weight_decay=1e-4))  # type: ignore[call-arg]
    model = ModelSection.model_validate({"name": "mlp", "hidden": [256, 256]})
    return Trainer(spec, model, training, Normaliser(spec, inputs=False, targets=False), device=str(device))


def _stall(trainer: Trainer, buffer: Buffer, batch_size: int, arriving: int) -> dict[str, Any]:
    drawn = buffer.get(batch_size)
    assert drawn is not None
    resident = Batch(drawn.inputs.to(trainer.device), drawn.targets.to(trainer.device))
    stop, put_samples = threading.Event(), 0

    def produce() -> None:
        nonlocal put_samples
        field, due = np.ones(buffer.spec.width, np.float32), time.monotonic()
        while not stop.wait(max(0.0, due - time.monotonic())):
            put(buffer, put_samples, field)
            put_samples += 1
            due += 1 / arriving

    def from_buffer() -> None:
        trainer.step(buffer.get(batch_size))

    producer = threading.Thread(target=produce) if arriving else None
    begun = time.monotonic()
    if producer is not None:
        producer.start()
    alone, fed = [], []
    for _ in range(ROUNDS):
        alone.append(seconds(lambda: trainer.step(resident), trainer.device, 100))
        fed.append(seconds(from_buffer, trainer.device, 100))
    stop.set()
    elapsed = time.monotonic() - begun
    buffer.close()
    if producer is not None:
        producer.join()
    shares = [1 - a / f for a, f in zip(alone, fed, strict=True)]
    return {
        "stall_share": median(shares),
        "lowest": min(shares),
        "highest": max(shares),
        "samples_per_second": batch_size / median(fed),
        "arrived_per_second": put_samples / elapsed,
    }
