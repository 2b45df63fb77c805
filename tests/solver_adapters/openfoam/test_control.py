"""What a case's controlDict says about its beginning and end holds in a study, or is refused."""

import shutil
from pathlib import Path
from typing import Any

import pytest

from penstock_solvers.openfoam import case_warnings
from penstock_solvers.openfoam.case import add_control
from penstock_solvers.openfoam.control import Control, read_control
from penstock_solvers.openfoam.dictionary import CaseError
from penstock_solvers.openfoam.settings import CaseSettings

CAVITY = Path(__file__).parents[3] / "examples" / "cavity" / "case"


@pytest.fixture
def case(tmp_path: Path) -> Path:
    return Path(shutil.copytree(CAVITY, tmp_path / "case"))


def append(case: Path, text: str) -> Control:
    with (case / "system" / "controlDict").open("a") as file:
        file.write(text + "\n")
    return read_control(settings(case))


def settings(case: Path, **changes: Any) -> CaseSettings:
    return CaseSettings.of({"case": str(case), "fields": ["U"], **changes})


@pytest.mark.parametrize(
    ("text", "start"),
    [
        ("startFrom latestTime;", "0.1"),
        ("startFrom firstTime;", "0"),
        ("startFrom startTime;", "0"),
        ("startFrom startTime; startTime 5e-2;", "0.05"),
    ],
)
def test_a_run_begins_where_the_case_says(case: Path, text: str, start: str) -> None:
    for name in ("0.05", "0.1", "1.2.3"):
        (case / name).mkdir()
    control = append(case, text)
    assert control.start == start
    add_control(case, control, settings(case), None)
    assert f"startTime       {start};" in (case / "system" / "controlDict").read_text()


@pytest.mark.parametrize(
    ("text", "time", "warned"),
    [
        ("adjustTimeStep yes;", "step", True),
        ("adjustTimeStep on;", "physical", False),
        ("adjustTimeStep no;", "step", False),
        ("", "step", False),
    ],
)
def test_time_steps_of_a_changing_size_are_no_measure_of_time(case: Path, text: str, time: str, warned: bool) -> None:
    append(case, text)
    lines = case_warnings({"case": str(case)}, time)
    assert bool(lines) is warned
    assert all(line.startswith('[samples] time = "step": the case says adjustTimeStep') for line in lines)


def test_a_run_that_would_make_no_time_step_is_refused(case: Path) -> None:
    (case / "7").mkdir()
    with pytest.raises(CaseError, match=r"endTime = 0\.2 is not after the start at 7"):
        append(case, "startFrom latestTime;")


@pytest.mark.parametrize("stop", ["nextWrite", "writeNow", "noWriteNow"])
def test_a_run_that_ends_at_a_write_keeps_the_cases_write_times(case: Path, stop: str) -> None:
    control = append(case, f"stopAt {stop};")
    add_control(case, control, settings(case), None)
    added = (case / "system" / "controlDict").read_text().split("// Added by Penstock")[1]
    assert "purgeWrite      1;" in added
    assert "writeInterval" not in added
    assert "writeControl" not in added


def test_an_own_function_object_that_streams_at_write_times_keeps_them(case: Path) -> None:
    own = "functions { mine { type penstockStream; executeControl writeTime; fields (U); } }"
    control = append(case, own)
    assert control.streams
    assert control.writes


def test_words_that_openfoam_does_not_know_are_refused(case: Path) -> None:
    with pytest.raises(CaseError, match="stopAt = never: expected one of endTime, writeNow, noWriteNow, nextWrite"):
        append(case, "stopAt never;")


def test_a_commented_function_object_streams_nothing(case: Path) -> None:
    assert not append(case, "/* functions { a { type penstockStream; } } */").streams


@pytest.mark.openfoam
def test_macros_units_and_conditions_of_a_controldict_are_read_by_openfoam(case: Path) -> None:
    text = (case / "system" / "controlDict").read_text().replace("application     icoFoam;", "app icoFoam;")
    (case / "system" / "controlDict").write_text(text)
    control = append(
        case,
        "application $app;\nt0 0;\nstartTime $t0;\nCp [J/kg/K] 1000;\n#ifeq $app icoFoam\nx 1;\n#else\nx 2;\n#endif",
    )
    assert (control.application, control.start) == ("icoFoam", "0")
    assert not (case / "dynamicCode").exists()
    before = (case / "system" / "controlDict").read_bytes()
    add_control(case, control, settings(case), None)
    assert (case / "system" / "controlDict").read_bytes().startswith(before)
