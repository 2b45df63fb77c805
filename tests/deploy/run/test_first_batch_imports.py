"""Before its first batch, a study imports no package that only its end or another kind of study needs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

HEAT = Path(__file__).parents[3] / "examples" / "heat" / "study.toml"
LATER = ("torch._dynamo", "torch._inductor", "sympy", "scipy.stats", "matplotlib", "tensorboard", "ray")
RECORD = """
import os, pathlib, sys
class Record:
    def find_spec(self, name, path=None, target=None):
        lines = pathlib.Path(os.environ["RUN"], "metrics.jsonl")
        if not lines.exists() or not lines.stat().st_size:
            with open(os.environ["IMPORTED"], "a") as file:
                file.write(name + "\\n")
sys.meta_path.insert(0, Record())
"""


def test_no_unneeded_import_delays_the_first_batch_of_an_inline_study(tmp_path: Path) -> None:
    (tmp_path / "sitecustomize.py").write_text(RECORD)
    out, imported = tmp_path / "run", tmp_path / "imported"
    changed = ("study.engine=inline", "solver.simulations=4", "buffer.watermark=40", "training.max_batches=2")
    overrides = [word for change in changed for word in ("--set", change)]
    done = subprocess.run(
        [sys.executable, "-m", "penstock.main", "run", str(HEAT), "--out", str(out), *overrides],
        env=os.environ | {"PYTHONPATH": str(tmp_path), "IMPORTED": str(imported), "RUN": str(out)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    before = imported.read_text().split()
    assert "torch" in before  # it is the list of that process
    assert [name for name in LATER if name in before] == []


def test_the_coordinators_process_needs_no_torch() -> None:
    # It also loads the class of the ranks' actors, when it receives their handles.
    code = "import sys, penstock_server.engines.ray.coordinator_actor, penstock_server.engines.ray.rank_actor\n"
    code += "print([m for m in ('torch', 'h5py', 'scipy', 'matplotlib', 'tensorboard') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["[]"]
