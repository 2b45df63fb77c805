"""The engine, the images and a project of compose for the tests of docker/."""

from __future__ import annotations

import socket
from collections.abc import Iterator

import pytest
from engine import Compose, engine, provide_base_image, torch_for_the_build

SETTINGS = " ".join(
    [
        "solver.simulations=40 solver.validation_simulations=2",
        "buffer.capacity=600 buffer.watermark=100 buffer.presentations_per_sample=100",
        "training.threads=1 training.validate_every=1000 training.checkpoint_every=3",
        "server.client_timeout=6",
    ]
)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture(scope="session")
def images() -> Iterator[None]:
    """A Docker engine with the images of docker/, built from this tree."""
    with engine():
        provide_base_image()
        with torch_for_the_build() as variables:
            Compose("penstock-test", variables)("build", "server", "worker", "prometheus")
        yield


@pytest.fixture
def compose(images: None) -> Iterator[Compose]:
    """A project without anything in it, and removed afterwards with all that it has made."""
    project = Compose("penstock-test", {"OVERRIDES": SETTINGS, "PROMETHEUS_PORT": str(_free_port())})
    project("down", "--volumes", "--timeout", "1", "--remove-orphans")
    try:
        yield project
    finally:
        project("down", "--volumes", "--timeout", "1", "--remove-orphans")
