"""Writing predictions as cases of OpenFOAM, which OpenFOAM's own tools read and its solvers start from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from penstock_client import PenstockError
from penstock_server.coordinator import solver_description
from penstock_server.study import Study
from penstock_server.surrogate import Prediction


class NotOpenFOAM(PenstockError):
    """The study's solver is not OpenFOAM, or its fields are not on the whole mesh."""


def write_cases(
    out: Path, points: Sequence[Mapping[str, float]], predictions: Sequence[Prediction], study: Study
) -> None:
    """Write each prediction as a case: the study's case at that point, with its mesh, and a folder for each time.

    Args:
        out: an empty folder: the case of one point, or the folder of the cases 0, 1, 2, ... of several.
        points: parameter values by name, for each prediction.
        predictions: the predictions.
        study: the study.

    Raises:
        NotOpenFOAM: the study does not run OpenFOAM.
        PenstockError: the case cannot be made (OpenFOAM is missing, a mesh command fails), or a field has no file with
            boundary conditions in the folder of the start time.
    """
    if study.solver.adapter != "openfoam":
        raise NotOpenFOAM(
            f'--format openfoam: the study\'s solver is not OpenFOAM ([solver] adapter = "{study.solver.adapter}"); '
            "use --format h5 or vtk"
        )
    # Only here, since PyFoam is imported.
    from penstock_solvers.openfoam import OpenFOAMRunner, time_of_step, write_time_folder

    physical = study.samples.time == "physical"
    with OpenFOAMRunner(solver_description(study)) as runner:
        for number, (point, prediction) in enumerate(zip(points, predictions, strict=True)):
            case = out if len(points) == 1 else out / str(number)
            case.mkdir(exist_ok=True)
            control = runner.make_case(case, point)
            for k, time in enumerate(prediction.times):
                at = time if physical else time_of_step(case, control, time, study.solver.every)
                fields = {name: values[k].reshape(-1, values.shape[-1]) for name, values in prediction.fields.items()}
                if study.solver.region is not None:
                    fields = {f"{study.solver.region}:{name}": values for name, values in fields.items()}
                write_time_folder(case, control.start, at, fields)
            (case / f"{study.study.name}.foam").touch()  # by which ParaView opens the case
