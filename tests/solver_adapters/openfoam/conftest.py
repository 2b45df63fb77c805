"""Fixtures for the tests of the function object penstockStream."""

from __future__ import annotations

import gzip
import re
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from cavity import foam, solve

from live_server import live_server, worker
from penstock_solvers.openfoam.build import build

TUTORIALS = Path("/usr/share/doc/openfoam-examples/examples")


@pytest.fixture(scope="session")
def library() -> Path:
    """The function object's library, built from the current sources; downloads OpenFOAM's headers if the cache has none."""
    return build()


@pytest.fixture
def tutorial(tmp_path: Path, library: Path) -> Callable[..., Path]:
    """Copies a tutorial, meshes it and adds an entry for the function object; nothing else is changed but the end time."""

    def make(
        name: str,
        fields: str,
        *entries: str,
        before: str = "",
        end_time: str | None = None,
        library: Path = library,
        mesh: Sequence[Sequence[str]] = (("blockMesh",),),
    ) -> Path:
        case = tmp_path / "case"
        shutil.copytree(TUTORIALS / name, case)
        for packed in case.rglob("*.gz"):
            packed.with_suffix("").write_bytes(gzip.decompress(packed.read_bytes()))
            packed.unlink()
        control = case / "system" / "controlDict"
        text = control.read_text()
        if end_time is not None:
            text = re.sub(r"^endTime .*$", f"endTime {end_time};", text, flags=re.M)
        entry = [
            "type    penstockStream;",
            f'libs    ("{library}");',
            *([f"fields  {fields};"] if fields else []),
            *entries,
        ]
        text += "\nfunctions\n{\n" + before + "penstock\n{\n    " + "\n    ".join(entry) + "\n}\n}\n"
        control.write_text(text)
        if (case / "0.orig").is_dir() and not (case / "0").is_dir():
            shutil.copytree(case / "0.orig", case / "0")
        for command in mesh:
            foam(case, *command)
        return case

    return make


@pytest.fixture
def studied(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """Streams one training and one held-out simulation of a case through the real server; gives the report."""

    def stream(case: Path, fields: dict[str, Any], *command: str, max_message: str = "16 MiB") -> dict[str, Any]:
        settings: dict[str, Any] = {"validation_simulations": 1, "max_message": max_message}
        with live_server(tmp_path / "run", fields, **settings) as server, worker(server) as client:
            for simulation in client.simulations():
                code, output = solve(server, simulation, case, *command)
                assert code == 0, output[-3000:]
                assert f"simulation {simulation.id} attempt 1" in output
                simulation.exited()
            report = server.report()
        assert report["status"] == "finished"
        assert report["simulations"]["finished"] == 2
        assert report["samples"]["unique"] == report["samples"]["expected"]
        assert report["samples"]["rejected"] == report["samples"]["duplicates_dropped"] == 0
        return report

    return stream
