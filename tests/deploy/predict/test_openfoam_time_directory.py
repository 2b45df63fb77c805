"""Predictions as a case of OpenFOAM: its own tools read them, and a solver starts from them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import numpy as np
import pytest
from command import EXAMPLES

from penstock.predict.openfoam import NotOpenFOAM, write_cases
from penstock.study import load_study
from penstock_server.surrogate import Prediction
from penstock_solvers.openfoam import OpenFOAMRunner, time_of_step
from penstock_solvers.openfoam.environment import openfoam_environment
from penstock_solvers.openfoam.errors import CaseError

CELLS = 400
STEPS = [9.0, 19.0]  # at 0.02 s and 0.04 s
POINT = {"lid_velocity": 1.25, "viscosity": 0.01}


def foam(case: Path, *command: str) -> str:
    done = subprocess.run(command, cwd=case, env=openfoam_environment(), capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout[-3000:]
    return done.stdout


def fields() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(5)
    return {"U": rng.normal(0, 1e-3, (2, CELLS, 3)).astype("f4"), "p": rng.normal(0, 1e-3, (2, CELLS, 1)).astype("f4")}


@pytest.mark.openfoam
def test_openfoam_reads_the_prediction_and_goes_on_from_it(tmp_path: Path) -> None:
    study = load_study(EXAMPLES / "cavity" / "study.toml")
    made = Prediction(STEPS, fields(), [])
    case = tmp_path / "case"
    case.mkdir()
    write_cases(case, [POINT], [made], study)
    assert (case / "cavity.foam").is_file()
    assert "uniform (1.25 0 0)" in (case / "0.04" / "U").read_text()
    foam(case, "postProcess", "-func", "components(U)", "-time", "0.02")
    text = (case / "0.02" / "Uy").read_text()
    values = np.array(text.partition("(\n")[2].partition("\n)")[0].split(), dtype="f4")
    np.testing.assert_allclose(values, made.fields["U"][0, :, 1], rtol=1e-5)  # OpenFOAM writes six digits
    control = case / "system" / "controlDict"
    foam(case, "foamDictionary", str(control), "-entry", "startFrom", "-set", "latestTime")
    foam(case, "foamDictionary", str(control), "-entry", "endTime", "-set", "0.044")
    said = foam(case, "icoFoam")
    assert "Time = 0.042" in said
    assert "Time = 0.04\n" not in said


@pytest.mark.openfoam
def test_several_points_are_cases_of_their_own(tmp_path: Path) -> None:
    study = load_study(EXAMPLES / "cavity" / "study.toml")
    made = [Prediction(STEPS, fields(), [])] * 2
    write_cases(tmp_path, [POINT, {**POINT, "lid_velocity": 0.5}], made, study)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0", "1"]
    assert "uniform (0.5 0 0)" in (tmp_path / "1" / "0" / "U").read_text()


def test_another_solver_has_no_case(tmp_path: Path) -> None:
    study = load_study(EXAMPLES / "heat" / "study.toml")
    with pytest.raises(NotOpenFOAM, match="the study's solver is not OpenFOAM"):
        write_cases(tmp_path, [{}], [], study)


@pytest.mark.openfoam
def test_a_step_of_a_case_that_changes_its_time_steps_has_no_time(tmp_path: Path) -> None:
    study = load_study(EXAMPLES / "cavity" / "study.toml")
    from penstock_server.coordinator import solver_description

    with OpenFOAMRunner(solver_description(study)) as runner:
        control = runner.make_case(tmp_path, POINT)
    assert time_of_step(tmp_path, control, 19, every=2) == pytest.approx(0.08)
    with (tmp_path / "system" / "controlDict").open("a") as file:
        file.write("adjustTimeStep yes;\n")
    with pytest.raises(CaseError, match="adjustTimeStep"):
        time_of_step(tmp_path, control, 19, every=2)
