"""Run tutorials of OpenFOAM as studies: steady, multi-region, moving-mesh, 0.orig, setFields and decomposed ones.

    .venv/bin/python tests/solver_adapters/openfoam/tutorials.py [NAME ...]

Each is copied from the installed package, given one parameter and a few time steps, and run as a study of two
simulations. Prints a line for each, and ends with code 1 if one has failed.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from carry_over import TUTORIALS, contents

from penstock_solvers.openfoam.build import build, library_path

COPY_T = ["cp", "0/T.orig", "0/T"]
REGIONS = [["blockMesh"], ["topoSet"], ["splitMeshRegions", "-cellZones", "-overwrite"]]


@dataclass(frozen=True)
class Tutorial:
    """A tutorial as a study.

    Attributes:
        path: its folder.
        file: file of the entry that the parameter sets.
        entry: the entry.
        value: format of its value.
        bounds: of the parameter.
        field: that is streamed.
        end: end time; one time step is `step`, or the case's own if 0.
        step: size of a time step.
        mesh: mesh commands; None: blockMesh.
        ranks: MPI ranks.
        region: mesh region, streamed by an entry of the case's own.
    """

    path: str
    file: str
    entry: str
    value: str
    bounds: tuple[float, float]
    field: str
    end: float
    step: float = 0.0
    mesh: list[list[str]] | None = None
    ranks: int = 1
    region: str = ""


TABLE = {
    "icoFoam": Tutorial("incompressible/icoFoam/cavity/cavity", "0/U", "boundaryField.movingWall.value.0", "{}",
                        (0.5, 1.5), "U", 0.05),
    "pisoFoam, 2 ranks": Tutorial("incompressible/pisoFoam/RAS/cavity", "0/U", "boundaryField.movingWall.value.0", "{}",
                                  (0.5, 1.5), "U", 0.05, ranks=2),
    "simpleFoam, steady": Tutorial("incompressible/simpleFoam/pitzDaily", "0/U", "boundaryField.inlet.value.0", "{}",
                                   (8, 12), "U", 4),
    "scalarTransportFoam": Tutorial("basic/scalarTransportFoam/pitzDaily", "constant/transportProperties", "DT", "{}",
                                    (0.01, 0.1), "T", 0.0005),
    "interFoam, 0.orig and setFields": Tutorial("multiphase/interFoam/laminar/damBreak/damBreak",
                                                "constant/transportProperties", "water.nu", "{}", (1e-6, 1e-3), "U",
                                                0.01, mesh=[["blockMesh"], ["setFields"]]),
    "buoyantBoussinesqPimpleFoam, T.orig": Tutorial("heatTransfer/buoyantBoussinesqPimpleFoam/hotRoom", "0/T.orig",
                                                    "boundaryField.floor.value", "uniform {}", (300, 350), "T", 8,
                                                    mesh=[["blockMesh"], COPY_T, ["setFields"]]),
    "buoyantPimpleFoam, 0.orig": Tutorial("heatTransfer/buoyantPimpleFoam/hotRoom", "0/T",
                                          "boundaryField.floor.value", "uniform {}", (300, 350), "T", 8,
                                          mesh=[["blockMesh"], ["setFields"]]),
    "pimpleFoam, moving mesh": Tutorial("incompressible/pimpleFoam/laminar/movingCone", "constant/transportProperties",
                                        "nu", "{}", (1e-5, 2e-5), "U", 1e-4),
    "sonicFoam": Tutorial("compressible/sonicFoam/laminar/forwardStep", "0/U", "internalField.0", "{}", (2.5, 3.5), "U",
                          0.02),
    "rhoCentralFoam": Tutorial("compressible/rhoCentralFoam/obliqueShock", "0/T", "internalField", "uniform {}",
                               (0.8, 1.2), "T", 0.02),
    "shallowWaterFoam": Tutorial("incompressible/shallowWaterFoam/squareBump", "0/hU", "boundaryField.inlet.value.0", "{}",
                                 (0.0005, 0.0015), "hU", 2, mesh=[["blockMesh"], ["setFields"]]),
    "chtMultiRegionFoam, region heater": Tutorial("heatTransfer/chtMultiRegionFoam/multiRegionHeater",
                                                  "system/heater/changeDictionaryDict",
                                                  "T.boundaryField.minY.value", "uniform {}", (400, 600), "T",
                                                  0.004, 0.001, mesh=[*REGIONS, *(["changeDictionary", "-region", r]
                                                  for r in ("bottomWater", "topAir", "heater", "leftSolid",
                                                            "rightSolid"))], region="heater"),
}  # fmt: skip


def make_study(tutorial: Tutorial, folder: Path) -> Path:
    """Copy a tutorial and write its study file."""
    case = Path(shutil.copytree(TUTORIALS / tutorial.path, folder / "case"))
    for packed in case.rglob("*.gz"):
        packed.with_suffix("").write_bytes(contents(packed))
        packed.unlink()
    control = case / "system" / "controlDict"
    text = f"\nendTime {tutorial.end};\nfunctions {{}}\n" + (f"deltaT {tutorial.step};\n" if tutorial.step else "")
    if tutorial.region:
        text += (
            f'functions {{ heat {{ type penstockStream; libs ("{library_path() or build()}"); region {tutorial.region}; '
            f"fields ({tutorial.field}); }} }}\n"
        )
    own = re.sub(r"^functions\s*\n\{.*?^\}", "", control.read_text(), flags=re.M | re.S)
    control.write_text(own + text)
    mesh = "" if tutorial.mesh is None else f"mesh_commands = {json.dumps(tutorial.mesh)}\n"
    study = folder / "study.toml"
    study.write_text(
        f'[study]\nname = "tutorial"\nengine = "inline"\n[parameters]\nx = {list(map(float, tutorial.bounds))}\n'
        f'[solver]\nadapter = "openfoam"\ncase = "case"\nsimulations = 2\nretries = 0\nranks = {tutorial.ranks}\n{mesh}'
        f'[solver.entries]\nx = {{ file = "{tutorial.file}", entry = "{tutorial.entry}", value = "{tutorial.value}" }}\n'
        f"[fields]\n{tutorial.field} = {{}}\n[training]\nbatch_size = 2\n"
    )
    return study


def run(name: str, tutorial: Tutorial) -> bool:
    """Run one tutorial; print its line. Returns whether both simulations have finished."""
    begun = time.monotonic()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        study = make_study(tutorial, Path(folder))
        command = [str(Path(sys.executable).with_name("penstock")), "run", str(study), "--out", f"{folder}/run"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        report = Path(folder, "run", "report.json")
        found = json.loads(report.read_text()) if report.is_file() else {}
    seconds = time.monotonic() - begun
    counts, samples = found.get("simulations", {}), found.get("samples", {})
    good = done.returncode == 0 and counts.get("finished") == 2 and samples["unique"] == samples["expected"] > 0
    figures = f"{counts.get('finished', 0)} of 2 finished, {samples.get('unique', 0)} samples" if found else "no report"
    print(f"{'ok' if good else 'FAILED':7}{name:38}{figures:36}{seconds:6.1f} s", flush=True)
    if not good:
        print("\n".join([*found.get("failures", {}).values(), *(done.stdout + done.stderr).splitlines()[-12:]]))
    return good


def main() -> int:
    """Run the tutorials that are named, or all."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("solver", nargs="*", help="such as icoFoam; default: all of the table")
    solvers = parser.parse_args().solver
    chosen = {name: row for name, row in TABLE.items() if not solvers or name.split(",")[0] in solvers}
    good = [run(name, row) for name, row in chosen.items()]
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main())
