"""The live page in a real browser, beside a real study and after it."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from browser import Look, chromium
from command import EXAMPLES, report, started
from playwright.sync_api import Browser
from test_page_access import address_of

from waiting import wait_for

pytestmark = [pytest.mark.slow, pytest.mark.browser]

WIDTHS = (1280, 400)
DRAWN_SECONDS = 60.0  # from the data in the browser to a picture of them
# So short that the first curves and pictures come within seconds; the study goes on until the test has seen enough.
QUICK = {
    "study.engine": "inline",
    "training.min_batches": 10**8,
    "training.validate_every": 20,
    "training.threads": 1,
    "buffer.watermark": 40,
    "solver.validation_simulations": 3,
}
STUDIES = {
    "heat": {"solver.simulations": 30, "solver.options.points": 32, "solver.options.steps": 30},
    "cavity": {"solver.simulations": 12},
}


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as opened:
        yield opened


def expect_pictures(look: Look, fields: int) -> None:
    """Curves, dots and fields are drawn, and nothing is wrong."""
    look.wait_for_length("validation", "mean", 0)
    look.wait_for_length("values_field_error", "image", 0)
    assert look.length("values_field_true", "image") == look.length("values_field_prediction", "image") == 1
    assert look.length("dots_held_out", "id") == 3
    assert (look.length("validation", "field_p") > 0) == (fields > 1)
    for place in ("#curves", "#simulations", "#fields"):
        wait_for(lambda: look.colours(place) > 20, DRAWN_SECONDS)  # noqa: B023 - called at once
    assert look.hangs_over() <= 0
    assert look.wrong == []


@pytest.mark.parametrize("name", ["heat", pytest.param("cavity", marks=pytest.mark.openfoam)])
def test_the_page_of_a_running_study_moves_and_that_of_a_finished_one_is_whole(
    browser: Browser, tmp_path: Path, name: str
) -> None:
    out = tmp_path / name
    settings = [word for key, value in (QUICK | STUDIES[name]).items() for word in ("--set", f"{key}={value}")]
    study = started("run", EXAMPLES / name / "study.toml", "--out", out, "--live", *settings)
    url = address_of(study)
    fields = 2 if name == "cavity" else 1
    for width in WIDTHS:
        look = Look(browser, url, width)
        points = look.wait_for_length("training", "batches", 1)
        expect_pictures(look, fields)
        look.wait_for_length("training", "batches", points)  # the curve moves
        assert "running" in look.header()
        look.page.close()
    study.send_signal(signal.SIGINT)
    printed = study.communicate()[0]
    assert study.returncode == 1, printed
    assert f"the live page has ended; see it again with: penstock watch {out}" in printed

    done = report(out)
    watch = started("watch", out, "--port", "0")
    url = address_of(watch)
    for width in WIDTHS:
        look = Look(browser, url, width)
        expect_pictures(look, fields)
        assert "stopped after" in look.header()
        states = look.values("dots_training", "state") + look.values("dots_held_out", "state")
        assert states.count("finished") == done["simulations"]["finished"]
        shown = [float(error) for error in look.values("dots_held_out", "error")]
        assert sum(shown) / len(shown) == pytest.approx(done["validation"]["relative_l2"])
        move_the_slider(look)
        assert look.wrong == []
        look.page.close()
    log = (out / "logs" / "live.log").read_text()
    assert "Traceback" not in log, log


def move_the_slider(look: Look) -> None:
    """An earlier time shows another field."""
    pixels = (
        "() => Array.from(Bokeh.documents[0].get_model_by_name('values_field_true').data.image[0]).slice(0, 500).join()"
    )
    before = look.page.evaluate(pixels)
    look.page.evaluate("() => { Bokeh.documents[0].get_model_by_name('time').value = 0 }")
    look.page.wait_for_function(f"(before) => ({pixels})() !== before", arg=before)


def test_a_page_that_was_open_before_the_study_shows_it(browser: Browser, tmp_path: Path) -> None:
    out = tmp_path / "run"
    out.mkdir()
    look = Look(browser, address_of(started("watch", out, "--port", "0")), 1280)
    assert "Waiting for a study" in look.header()
    settings = [word for key, value in (QUICK | STUDIES["heat"]).items() for word in ("--set", f"{key}={value}")]
    study = started("run", EXAMPLES / "heat" / "study.toml", "--out", out, *settings)
    expect_pictures(look, 1)
    study.send_signal(signal.SIGINT)
    wait_for(lambda: study.poll() is not None)
