"""Write docs/results.md from the results in docs/results; `make results` runs the benchmarks and then this."""

from __future__ import annotations

import argparse
import json
import textwrap
from collections.abc import Iterator
from statistics import mean, stdev
from typing import Any

from dataset_curve import draw_dataset_curve
from provenance import RESULTS, ROOT

PAGE = ROOT / "docs" / "results.md"
TITLES = {"mlp": "Fully connected, heat equation", "fno": "FNO, Navier-Stokes", "unet": "U-Net, Navier-Stokes",
          "mp_pde": "Message passing, mixed advection"}  # fmt: skip
FEW = 0.2  # if the error falls by less than this over the datasets, the model does not lack data
CLAIMED = {"mlp": "68 %", "fno": "16 %", "mp_pde": "7 %", "unet": "-"}


def load(name: str) -> dict[str, Any] | None:
    """Return the contents of a results file; None if it has not been made."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text()) if path.is_file() else None


def paragraph(text: str) -> str:
    """Return a paragraph with lines of at most 120 characters, and an empty line after it."""
    return textwrap.fill(text, 120, break_long_words=False, break_on_hyphens=False) + "\n"


def made_by(found: dict[str, Any]) -> str:
    """Return the sentence that names command, commit, date and machine of some results."""
    return paragraph(
        f"Made by `{found['command']}` at commit {found['commit']} on {found['date']}: {found['machine']}; "
        f"torch {found['torch']}, Python {found['python']}."
    )


def spread(values: list[float], digits: int = 3) -> str:
    """Return mean ± standard deviation as text; the mean alone for a single value."""
    deviation = f" ± {stdev(values):.2g}" if len(values) > 1 else ""
    return f"{mean(values):.{digits}g}{deviation}"


def laptop(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines on the laptop protocol."""
    rows = found["rows"]
    yield "## Laptop protocol\n"
    yield paragraph(
        "The protocol of the SC 2023 artifact (heat equation 100 x 100, 100 simulations of 100 steps, two clients, "
        "buffer 2500, watermark 500, batches of 10) beside its published table. The reservoir draws as many batches "
        "as the published run, because producers wait until each sample has been drawn often enough."
    )
    yield made_by(found)
    yield (
        "| | batches | final validation MSE (K²) | lowest | published | samples/s while data arrive | after | ratio |"
    )
    yield "|---|---|---|---|---|---|---|---|"
    for policy, (_, published) in found["published"].items():
        own = [r for r in rows if r["policy"] == policy]
        if not own:
            continue
        both = [
            (r["samples_per_second_arriving"], r["samples_per_second_after"])
            for r in own
            if r["samples_per_second_arriving"] and r["samples_per_second_after"]
        ]
        arriving = [r["samples_per_second_arriving"] for r in own if r["samples_per_second_arriving"]]
        cells = [
            f"{mean(r['batches'] for r in own):.0f}",
            spread([r["validation_mse"] for r in own]),
            spread([r["validation_mse_lowest"] for r in own]),
            str(published),
            spread(arriving) if arriving else "-",
            spread([after for _, after in both]) if both else "-",
            spread([a / b for a, b in both]) if both else "-",
        ]
        yield f"| {policy} | {' | '.join(cells)} |"
    yield ""
    yield paragraph(
        f"Means ± standard deviations over {len({r['seed'] for r in rows})} seeds. FIFO's final error depends on the "
        "simulations that happened to arrive last. This is its bias: compare its final with its lowest error."
    )


def models(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines on online and offline training of four surrogates."""
    yield "## Online against offline\n"
    yield "![Offline error over dataset size, and the online error](results/dataset_curve.png)\n"
    yield paragraph(
        "Each surrogate is trained on the stream (reservoir) and on a recorded dataset, with equal batches, model, "
        "optimizer and held-out simulations. The improvement is 1 - mean(online error) / mean(offline error) of the "
        "held-out relative L2 error, against the smallest dataset (x1)."
    )
    yield "| | improvement | claimed (ICML 2023) | of the rollout | seeds |"
    yield "|---|---|---|---|---|"
    for model, one in found["models"].items():
        rollout = one["improvement_rollout"]
        seeds = len({row["seed"] for row in one["rows"]})
        shown = "-" if rollout is None else f"{rollout:.0%}"
        yield f"| {TITLES[model]} (`{model}`) | {one['improvement']:.1%} | {CLAIMED[model]} | {shown} | {seeds} |"
    for model, one in found["models"].items():
        yield f"\n### {TITLES[model]}\n"
        yield paragraph(
            f"Study: [{one['study']}](../{one['study']}) with the settings in online_vs_offline.json. "
            f"Stored offline: {one['stored']} simulations ({one['why']})."
        )
        yield made_by(one)
        yield one["table"]
        yield how_much_data(one["rows"])
        yield f"![{TITLES[model]}: offline and online](results/online_vs_offline_{model}.png)\n"


def how_much_data(rows: list[dict[str, Any]]) -> str:
    """Return a sentence or two on what a larger dataset would have gained."""
    errors: dict[str, list[float]] = {}
    for row in rows:
        errors.setdefault(row["variant"], []).append(row["validation_error"])
    means = {variant: mean(values) for variant, values in errors.items()}
    offline = [variant for variant in means if variant.startswith("offline")]
    online = means["online reservoir"]
    fall = 1 - means[offline[-1]] / means[offline[0]]
    # As good: within the spread of the seeds.
    enough = [v for v in offline if means[v] <= online + stdev(errors["online reservoir"])]
    as_good = (
        f"the smallest dataset that does as well as the stream is {enough[0]}"
        if enough
        else "none does as well as the stream"
    )
    text = f"From {offline[0]} to {offline[-1]} the offline error falls by {fall:.0%}; {as_good}."
    if fall < FEW:
        text += (
            " Such a small fall means that this model, with so few batches, lacks training and not data: more "
            "diverse data cannot help it much, online or offline."
        )
    return paragraph(text)


def bias(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines on the bias of a stream."""
    yield "## The bias of a stream\n"
    yield "![Error over batches, sorted and as drawn](results/streaming_bias.png)\n"
    yield paragraph(
        f"Simulations of the heat equation arrive sorted by the sum of their temperatures: {found['simulations']} "
        f"simulations, {found['samples']} samples, a buffer of {found['capacity']}. FIFO forgets the first "
        "simulations; the reservoir trains nearly as well as shuffled data."
    )
    yield made_by(found)
    yield "| | held-out relative L2 error |"
    yield "|---|---|"
    for name in found["mean_error"]:
        yield f"| {name} | {spread([r['validation_error'] for r in found['rows'] if r['variant'] == name])} |"
    yield ""


def literature(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines on the models beside their papers."""
    yield "## The models beside their own papers\n"
    yield paragraph(
        "FNO: relative L2 error of the rollout, Navier-Stokes at viscosity 1e-3, 64 x 64 (Li et al. 2021). MP-PDE: "
        "accumulated squared error of the rollout, here at 40 points, published at 100 (Brandstetter et al. 2022; "
        "their grids are 100, 50 and 40). Data, schedules and rollout lengths differ from the papers', so the table "
        "compares orders of magnitude. The authors train for 500 epochs (FNO) and for 640,000 steps (MP-PDE); here "
        "it is the number of batches in the table."
    )
    columns = ("ours", "published", "single step, relative L2", "rollout, relative L2", "batches", "simulations")
    yield f"| | {' | '.join(columns)} | wall time (s) | commit |"
    yield "|---|---|---|---|---|---|---|---|---|"
    for r in found["rows"]:
        cells = (
            f"{r['error']:.3g}",
            r["published"] or "-",
            f"{r['single_step_relative_l2']:.3g}",
            f"{r['rollout_relative_l2']:.3g}",
            r["batches"],
            r["simulations"],
            f"{r['wall_seconds']:.0f}",
            r["commit"],
        )
        yield f"| {r['case']} | {' | '.join(map(str, cells))} |"
    yield ""
    yield paragraph(
        "E1 and E2 are followed to time 4, E3 to time 2. All are forced, and a model that sees 25 time steps must "
        "infer from them how the forcing continues. Its error grows with the square of time, again in each bundle, "
        "while the error of a single bundle is small. The row without forcing shows the same model on the same "
        "equation without this task."
    )
    yield f"Made by `python benchmarks/literature.py`: {found['rows'][0]['machine']}.\n"


def ranks(found: dict[str, Any]) -> Iterator[str]:
    """Yield the lines on several trainer ranks."""
    yield "## Several trainer ranks\n"
    yield paragraph(
        "A smaller heat example, with 1, 2 and 4 trainer ranks and the same study file otherwise: batch, buffer and "
        "learning rate are those of all ranks together. Every run counts every sample once; the errors should differ "
        "by no more than seeds do. On two cores more ranks are not faster, since ranks and solvers share them."
    )
    yield made_by(found)
    yield "| ranks | held-out relative L2 | batches | samples expected = unique = trained | samples/s |"
    yield "|---|---|---|---|---|"
    for number in dict.fromkeys(row["ranks"] for row in found["rows"]):
        own = [row for row in found["rows"] if row["ranks"] == number]
        accounted = {(row["expected"], row["unique"], row["trained_unique"]) for row in own}
        cells = [
            spread([row["validation_error"] for row in own]),
            f"{mean(row['batches'] for row in own):.0f}",
            ", ".join("/".join(map(str, dict.fromkeys(figures))) for figures in sorted(accounted)),
            spread([row["samples_per_second"] for row in own]),
        ]
        yield f"| {number} | {' | '.join(cells)} |"
    yield f"\nMeans ± standard deviations over {len({row['seed'] for row in found['rows']})} seeds.\n"


def page() -> str:
    """Return the text of docs/results.md."""
    parts = [
        "# Results\n",
        paragraph(
            "Every figure here was made by the command named beside it. `make results` makes them all and writes this "
            "page."
        ),
    ]
    for name, section in SECTIONS.items():
        found = load(name)
        if found is not None:
            parts += section(found)
    return "\n".join(parts).rstrip() + "\n"


def main() -> None:
    """Run from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--print", action="store_true", help="print the page; write and draw nothing")
    if parser.parse_args().print:
        print(page(), end="")
        return
    compared = load("online_vs_offline")
    if compared is not None:
        draw_dataset_curve(compared["models"], TITLES, RESULTS / "dataset_curve.png")
    PAGE.write_text(page())
    print(f"written to {PAGE.relative_to(ROOT)}")


SECTIONS = {
    "laptop_protocol": laptop,
    "online_vs_offline": models,
    "streaming_bias": bias,
    "trainer_ranks": ranks,
    "literature": literature,
}

if __name__ == "__main__":
    main()
