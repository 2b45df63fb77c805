"""`penstock compare`: a study trained online and on a recorded dataset, equal in everything but the source of samples.

For each seed the study's first simulations are recorded (`penstock record`), and the model is trained on datasets of
sizes x1, x4, ... of them. The same model is trained on the stream under each buffer policy. All runs see the same
held-out simulations and train for the same number of batches.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from penstock.compare.variants import Outcome, Variant, overrides, penstock, run_variant
from penstock.study import load_study
from penstock_client import PenstockError
from penstock_server.recording import Recording
from penstock_server.study import Study, windows_in

POLICIES = ("fifo", "firo", "reservoir")
RUNS = "runs"


class CompareError(PenstockError):
    """A study that cannot be compared as asked."""


@dataclass(frozen=True)
class Plan:
    """What to compare.

    Attributes:
        stored: training simulations in the smallest dataset.
        factors: dataset sizes, as multiples of it.
        policies: buffer policies of the online runs.
        seeds: each variant is run once with each.
        jobs: how many runs at a time.
    """

    stored: int
    factors: tuple[int, ...] = (1,)
    policies: tuple[str, ...] = POLICIES
    seeds: tuple[int, ...] = (1, 2, 3)
    jobs: int = 1


@dataclass(frozen=True)
class Result:
    """An outcome with what the run consumed.

    Attributes:
        outcome: of the run.
        simulations: how many it trained on.
        gigabytes: size of their time steps, in 10^9 bytes.
    """

    outcome: Outcome
    simulations: int
    gigabytes: float

    def row(self) -> dict[str, Any]:
        """Give the run's line of the comparison as plain data."""
        report, variant = self.outcome.report, self.outcome.variant
        validation, samples, training = report["validation"], report["samples"], report["training"]
        rollout = validation["rollout"]
        return {
            "variant": variant.name,
            "source": variant.source,
            "seed": variant.seed,
            "batches": training["batches"],
            "validation_error": validation["relative_l2"],
            "validation_mse": validation["mse"],
            "validation_p99": validation["relative_l2_p99"],
            "rollout_error": None if rollout is None else rollout["relative_l2"],
            "simulations": self.simulations,
            "samples_unique": samples["trained_unique"],
            "presentations": samples["presentations"],
            "times_seen": report["buffer"]["mean_times_seen"],
            "gigabytes": round(self.gigabytes, 6),
            "samples_per_second": training["samples_per_second"],
            "stall_fraction": training["stall_fraction"],
            "wall_seconds": report["wall_seconds"],
        }


def compare(
    study_file: Path,
    settings: Mapping[str, Any],
    plan: Plan,
    out: Path,
    log: Callable[[str], None],
    *,
    keep: bool = False,
) -> list[Result]:
    """Run every variant of a study.

    Args:
        study_file: the study file.
        settings: table.key to value, laid over the study file.
        plan: what to compare.
        out: the runs are in its folder runs.
        log: called with a line about each step.
        keep: leave the runs there; their recordings are always removed.

    Returns:
        The results in the order of the plan, seeds within variants.

    Raises:
        CompareError: the study cannot be compared as planned.
        VariantFailed: a run failed.
    """
    study = load_study(study_file, overrides(settings)[1::2])  # without each "--set"
    _check(study, plan)
    runs = out / RUNS
    runs.mkdir(parents=True, exist_ok=True)
    try:
        with ThreadPoolExecutor(plan.jobs) as pool:
            for line in pool.map(lambda seed: _record(study_file, study, settings, plan, seed, runs), plan.seeds):
                log(line)
            first = Recording.open(runs / _file(plan.seeds[0]))
            steps, bytes_per_step = first.longest(), first.bytes_per_step
            variants = list(_variants(study, plan, runs, steps))
            results = []
            for outcome in pool.map(lambda v: run_variant(study_file, v, runs, settings), variants):
                result = _result(study, outcome, steps, bytes_per_step)
                row = result.row()
                log(
                    f"{outcome.variant.label}: relative L2 {row['validation_error']:.4g} after {row['batches']} batches"
                )
                results.append(result)
    finally:
        for file in runs.glob("*.h5"):
            file.unlink()
        if not keep:
            shutil.rmtree(runs, ignore_errors=True)
    return results


def _check(study: Study, plan: Plan) -> None:
    if study.training.max_batches is None:
        raise CompareError(
            "[training] max_batches is not set: expected a number, since every variant must train for as many batches; "
            "add --set training.max_batches=2000"
        )
    if study.solver.validation_simulations == 0:
        raise CompareError("[solver] validation_simulations = 0: expected held-out simulations to compare errors on")
    if study.training.source is not None:
        raise CompareError("[training] source is set: expected a study of a stream; compare records its own data")
    unknown = [p for p in plan.policies if p not in POLICIES]
    if unknown:
        raise CompareError(f"policies {', '.join(unknown)}: expected some of {', '.join(POLICIES)}")


def _file(seed: int) -> str:
    return f"recording-{seed}.h5"


def _record(study_file: Path, study: Study, settings: Mapping[str, Any], plan: Plan, seed: int, runs: Path) -> str:
    simulations = plan.stored * max(plan.factors)
    changed = {**settings, "study.seed": seed, "solver.simulations": simulations}
    file = runs / _file(seed)
    file.unlink(missing_ok=True)
    penstock(["record", str(study_file), "--out", str(file), *overrides(changed)], runs / f"recording-{seed}.log")
    held_out, gigabytes = study.solver.validation_simulations, file.stat().st_size / 1e9
    return f"recorded {simulations} simulations and {held_out} held out with seed {seed}: {gigabytes:.3g} GB"


def _variants(study: Study, plan: Plan, runs: Path, steps: int) -> Iterator[Variant]:
    training = study.training
    assert training.max_batches is not None
    for factor in plan.factors:
        for seed in plan.seeds:
            stored = {
                "training.source": str((runs / _file(seed)).absolute()),
                "solver.simulations": plan.stored * factor,
            }
            yield Variant(f"offline x{factor}", "offline", seed, stored)
    per_simulation = max(1, windows_in(steps, study.samples.window, study.samples.stride))
    # FIFO and FIRO remove what they draw: they need a sample for each one drawn, and those that fill the buffer to
    # its watermark.
    once = -(-(training.max_batches * training.batch_size + study.buffer.watermark) // per_simulation)
    for policy in plan.policies:
        settings: dict[str, Any] = {"buffer.policy": policy}
        if policy != "reservoir":
            settings |= {"buffer.presentations_per_sample": 0.0, "solver.simulations": once + study.solver.concurrency}
        for seed in plan.seeds:
            yield Variant(f"online {policy}", "online", seed, settings)


def _result(study: Study, outcome: Outcome, steps: int, bytes_per_step: int) -> Result:
    report = outcome.report
    if outcome.variant.source == "offline":
        simulations = int(outcome.variant.settings["solver.simulations"])
        return Result(outcome, simulations, simulations * steps * bytes_per_step / 1e9)
    held_out = study.solver.validation_simulations
    received = report["clients"]["bytes_received"] - held_out * steps * bytes_per_step
    simulations = round(received / (steps * bytes_per_step))
    return Result(outcome, simulations, received / 1e9)


def draw(results: list[Result], path: Path) -> Path:
    """Draw the figure of a comparison and return its path.

    Args:
        results: of all runs.
        path: the picture file to write.
    """
    from penstock_server.plots.comparison import draw_comparison

    runs: dict[str, list[Any]] = {}
    for result in results:
        outcome = result.outcome
        times_seen = outcome.report["buffer"]["times_seen"]
        runs.setdefault(outcome.variant.name, []).append((outcome.training, outcome.validations, times_seen))
    return draw_comparison(runs, path)
