"""A small exported surrogate, and its service on a real socket."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import torch
from fastapi import FastAPI

from penstock.service import listen, make_server
from penstock_server.study import Batch, FieldSpec, ModelSection, SampleSpec, TrainingSection
from penstock_server.surrogate import Surrogate
from penstock_server.surrogate.export import ModelCard, export_model
from penstock_server.training import Normaliser, Trainer

BOUNDS = {"speed": (1.0, 2.0), "width": (0.1, 0.3)}
POINT = {"speed": 1.5, "width": 0.2}


def exported(folder: Path, window: int = 1) -> Surrogate:
    """Train a model for one step and export it to the run directory `folder`."""
    spec = SampleSpec(tuple(BOUNDS), (FieldSpec("U", 3, (4,)), FieldSpec("p", 1, (2, 3))), window=window)
    rng = np.random.default_rng(0)
    inputs = rng.uniform(0.5, 2.0, (40, window, spec.n_inputs)).astype(np.float32)
    targets = rng.normal(300.0, 20.0, (40, window, spec.width)).astype(np.float32)
    normaliser = Normaliser(spec)
    normaliser.update(inputs, targets)
    training = TrainingSection()
    trainer = Trainer(spec, ModelSection.model_validate({"hidden": [16]}), training, normaliser, device="cpu")
    trainer.step(Batch(torch.from_numpy(inputs), torch.from_numpy(targets)))
    export_model(folder / "model", trainer, spec, ModelCard("wave", 7, BOUNDS))
    return Surrogate.load(folder)


@contextmanager
def served(app: FastAPI, token: str | None = None) -> Iterator[httpx.Client]:
    """The service of a surrogate on a socket of this machine, and a client of it."""
    listening, server = listen("127.0.0.1", 0), make_server(app)
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        url = f"http://127.0.0.1:{listening.getsockname()[1]}"
        with httpx.Client(base_url=url, headers=headers, timeout=60, trust_env=False) as client:
            yield client
    finally:
        server.should_exit = True
        thread.join()
        listening.close()
