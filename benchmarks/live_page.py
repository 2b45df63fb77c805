"""Measure how much an open live page slows training down.

    python benchmarks/live_page.py [--rounds 5] [--seconds 20]

One study runs. In turn, a browser shows its page for some seconds, and does not. The page's server runs all the time, as
beside `penstock run --live`. Throughput is the number of samples trained on, by metrics.jsonl, over the time of a turn.
The browser is a real Chromium on the same machine, which also draws the page: without an SSH tunnel to another machine,
this is the worst case.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from playwright.sync_api import Browser, sync_playwright
from provenance import ROOT, provenance

SETTLE = 3.0  # seconds after a change before counting
PENSTOCK = [sys.executable, "-m", "penstock.main"]
SETTINGS = {
    "training.min_batches": 10**9,
    "training.checkpoint_every": "1 h",
    "solver.simulations": 100_000,
    "training.validate_every": 1000,
}


def start(out: Path) -> tuple[subprocess.Popen[str], str]:
    """Start the study with its page; return it and the page's address."""
    settings = [word for key, value in SETTINGS.items() for word in ("--set", f"{key}={value}")]
    study = subprocess.Popen(
        [*PENSTOCK, "run", ROOT / "examples" / "heat" / "study.toml", "--out", out, "--live", *settings],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    assert study.stdout is not None
    for line in study.stdout:
        if found := re.search(r"live page: (\S+)", line):
            return study, found[1]
    raise SystemExit("the study has ended before its page was there")


def last_line(out: Path) -> dict[str, Any]:
    """Return the last whole line about training."""
    lines = (out / "metrics.jsonl").read_text().splitlines(keepends=True)
    return next(
        value for line in reversed(lines) if line.endswith("\n") and (value := json.loads(line))["kind"] == "train"
    )


def throughput(out: Path, seconds: float) -> float:
    """Return the samples trained on a second, over so many seconds from now on."""
    time.sleep(SETTLE)
    first = last_line(out)
    time.sleep(seconds)
    last = last_line(out)
    return float(last["presentations"] - first["presentations"]) / float(last["time"] - first["time"])


def watched(browser: Browser, url: str, out: Path, seconds: float) -> float:
    """Return the throughput while the page is open."""
    page = browser.new_page(viewport={"width": 1280, "height": 900})
    page.goto(url)
    page.wait_for_function("() => window.Bokeh && Bokeh.documents.length && Bokeh.documents[0].is_idle")
    found = throughput(out, seconds)
    page.close()
    return found


def main() -> None:
    """Measure in turn, and print every round and the ratio."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--rounds", type=int, default=5)
    options.add_argument("--seconds", type=float, default=20.0)
    given = options.parse_args()
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, sync_playwright() as playwright:
        out = Path(folder) / "run"
        study, url = start(out)
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        try:
            while not (out / "metrics.jsonl").exists() or last_line(out)["batches"] < 200:
                time.sleep(1)
            ratios = []
            for number in range(given.rounds):
                # Every second round begins with the other, so that a drift of the study does not count for one of them.
                if number % 2:
                    open_, closed = watched(browser, url, out, given.seconds), throughput(out, given.seconds)
                else:
                    closed, open_ = throughput(out, given.seconds), watched(browser, url, out, given.seconds)
                ratios.append(open_ / closed)
                print(
                    f"round {number + 1}: {closed:.0f} samples/s without, {open_:.0f} with the page: {ratios[-1]:.3f}",
                    flush=True,
                )
        finally:
            browser.close()
            study.send_signal(signal.SIGINT)
            study.communicate()
    about = provenance("python benchmarks/live_page.py")
    print(
        f"with the page over without: median {statistics.median(ratios):.3f}, from {min(ratios):.3f} to "
        f"{max(ratios):.3f} in {len(ratios)} rounds ({about['machine']}, commit {about['commit']})"
    )


if __name__ == "__main__":
    main()
