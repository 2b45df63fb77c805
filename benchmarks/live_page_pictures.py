"""Draw the pictures of docs/live-page.md: screenshots of the live page beside real studies.

    python benchmarks/live_page_pictures.py [elbow] [heat]

Needs OpenFOAM with the built function object, and Chromium. Takes about three minutes.
"""

from __future__ import annotations

import io
import re
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image
from playwright.sync_api import Browser, Page, sync_playwright
from provenance import ROOT

PICTURES = ROOT / "docs" / "pictures"


def watch(browser: Browser, url: str, width: int) -> Page:
    """Open the page and wait until it is drawn."""
    page = browser.new_page(viewport={"width": width, "height": 900})
    page.set_default_timeout(300_000)
    page.goto(url)
    page.wait_for_function("() => window.Bokeh && Bokeh.documents.length && Bokeh.documents[0].is_idle")
    return page


def wait_for(page: Page, source: str, column: str, number: int) -> None:
    """Wait until the page has so many points of a curve."""
    page.wait_for_function(
        "([source, column, number]) => (Bokeh.documents[0].get_model_by_name(source)?.data[column]?.length ?? 0) >= number",
        arg=[source, column, number],
    )
    page.wait_for_timeout(1500)  # until they are drawn


def save(page: Page, name: str, *places: str) -> None:
    """Write a screenshot of the parts of the page, one below the other; of the whole page without parts."""
    shots = [page.locator(place).screenshot() for place in places] or [page.screenshot(full_page=True)]
    parts = [Image.open(io.BytesIO(shot)).convert("RGB") for shot in shots]
    whole = Image.new("RGB", (max(p.width for p in parts), sum(p.height for p in parts)), "white")
    below = 0
    for part in parts:
        whole.paste(part, (0, below))
        below += part.height
    path = PICTURES / f"{name}.png"
    # Other methods merge the colours of two states.
    small = whole.quantize(256, method=Image.Quantize.FASTOCTREE, dither=Image.Dither.NONE)
    small.save(path, optimize=True)
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size / 1000:.0f} kB")


def study(example: str, folder: Path, *settings: str) -> tuple[subprocess.Popen[str], str]:
    """Run an example in a folder with its live page; return the process and the page's address."""
    command = [
        sys.executable,
        "-m",
        "penstock.main",
        "run",
        ROOT / "examples" / example / "study.toml",
        "--out",
        f"runs/{example}",
    ]
    words = [word for setting in settings for word in ("--set", setting)]
    process = subprocess.Popen(
        [*command, "--live", *words], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        if found := re.search(r"live page: (\S+)", line):
            return process, found[1]
    raise SystemExit(f"{example} has ended before its page was there")


def main() -> None:
    """Run the elbow and the heat equation, and look at them."""
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path="/usr/bin/chromium", args=["--no-sandbox"])
        for example, validations, settings in (
            ("elbow", 5, ["training.validate_every=100"]),
            ("heat", 3, ["training.validate_every=100"]),
        ):
            if example not in (sys.argv[1:] or ("elbow", "heat")):
                continue
            process, url = study(example, Path(folder), "study.engine=inline", *settings)
            try:
                page = watch(browser, url, 1280)
                wait_for(page, "validation", "mean", validations)
                if example == "elbow":
                    save(page, "live_page_top", "header", "#curves")
                    save(page, "live_page_fields", "#fields")
                    narrow = watch(browser, url, 400)
                    narrow.wait_for_timeout(2000)
                    save(narrow, "live_page_narrow", "header", "#fields")
                else:
                    save(page, "live_page_simulations", "#simulations")
            finally:
                process.send_signal(signal.SIGINT)
                process.communicate()
        browser.close()


if __name__ == "__main__":
    main()
