"""Writers for Melissa that initialise each field right before its first send, and write vectors as components NAME[X]."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from native import SANITIZERS, Installed, serve

from mpi import recorded, recorder, require

SOURCE = Path(__file__).parent / "mpi" / "melissa_writer.c"
FIELDS = {"pressure": {}, "velocity": {"components": 3}}

pytestmark = [pytest.mark.slow]


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Installed:
    require("mpirun", "mpicc")
    return Installed(tmp_path_factory.mktemp("melissa"), SANITIZERS)


@pytest.fixture(scope="module")
def writer(installed: Installed) -> Path:
    return installed.program("cc", SOURCE, "penstock-melissa")


@pytest.fixture(scope="module")
def parallel_writer(installed: Installed) -> Path:
    return installed.program("mpicc", SOURCE, "penstock-melissa-mpi", "-DWITH_MPI", name="parallel_writer")


@pytest.mark.parametrize(
    ("ranks", "steps", "points"), [(0, 3, 5), (0, 1, 5), (3, 3, 2)], ids=["serial", "one-step", "a-rank-without-points"]
)
def test_the_fields_of_a_writer_arrive_with_their_components_in_order(
    installed: Installed,
    writer: Path,
    parallel_writer: Path,
    tmp_path: Path,
    ranks: int,
    steps: int,
    points: int,
) -> None:
    program = parallel_writer if ranks else writer
    with recorder(tmp_path / "run", FIELDS, time="step") as server:
        serve(server, installed, [program, "{a!r}", str(steps), str(points)], ranks=ranks)
        report = server.report()
    assert (report["status"], report["time_steps"]) == ("finished", steps)
    a, _, values = recorded(server, 0)
    assert len(values) == steps
    for step in range(steps):
        X, Y, Z, pressure = (a + step + 16 * kind + np.arange(points) / 1024 for kind in (1, 2, 3, 4))  # noqa: N806
        expected = np.concatenate([pressure, np.stack([X, Y, Z], axis=1).reshape(-1)])
        np.testing.assert_array_equal(values[step], expected.astype(np.float32))


@pytest.mark.parametrize(
    ("way", "text"),
    [
        ("late", 'melissa_init("heat_flux"): the first time step is complete; initialise and send every field in the'),
        ("both", 'melissa_init("velocity"): a field is sent whole or in components NAME[X], not both'),
        ("twice", 'melissa_init("velocity[Y]"): the field has been initialised before; initialise it once'),
    ],
)
def test_a_writer_that_cannot_be_served_is_told_why(
    installed: Installed, writer: Path, tmp_path: Path, way: str, text: str
) -> None:
    with recorder(tmp_path / "run", FIELDS, time="step") as server:
        said = serve(server, installed, [writer, "{a!r}", "3", "5", way], code=1)
        assert text in server.report()["failures"][0]
    assert text in said
