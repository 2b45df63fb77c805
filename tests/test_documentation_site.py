"""The documentation builds as a site, offline and without a warning; its links lead somewhere, and it loads nothing from elsewhere."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

ROOT = Path(__file__).parents[1]
SITE = pytest.mark.xdist_group("documentation site")
LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src"}
"""Attributes by which a page loads something, by tag."""


class Page(HTMLParser):
    """The links of one page, what it loads, and the anchors that it has."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.anchors: set[str] = set()
        self.feed(path.read_text())

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        self.anchors |= {attributes[name] for name in ("id", "name") if name in attributes}
        if tag == "a" and attributes.get("href"):
            self.links.append(attributes["href"])
        if attributes.get(LOADED.get(tag, "")) and attributes.get("rel") != "canonical":
            self.loaded.append(attributes[LOADED[tag]])


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    done = subprocess.run(
        [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", folder],
        cwd=ROOT,
        env={**os.environ, "NO_MKDOCS_2_WARNING": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr
    return folder


@pytest.fixture(scope="module")
def pages(site: Path) -> dict[Path, Page]:
    return {path: Page(path) for path in site.rglob("*.html") if path.name != "404.html"}


@SITE
@pytest.mark.slow
def test_every_link_and_anchor_leads_somewhere(pages: dict[Path, Page]) -> None:
    assert len(pages) > 20
    broken = []
    for path, page in pages.items():
        for link in (*page.links, *page.loaded):
            parts = urlsplit(link)
            if parts.scheme:
                continue
            target = (path.parent / unquote(parts.path)).resolve() if parts.path else path
            anchor = unquote(parts.fragment)
            if not target.is_file() or (anchor and target in pages and anchor not in pages[target].anchors):
                broken.append(f"{path.name}: {link}")
    assert broken == []


@SITE
@pytest.mark.slow
def test_it_loads_nothing_from_elsewhere(pages: dict[Path, Page]) -> None:
    assert {link for page in pages.values() for link in page.loaded if urlsplit(link).netloc} == set()


@SITE
@pytest.mark.slow
def test_the_api_comes_from_the_docstrings(pages: dict[Path, Page], site: Path) -> None:
    assert {"penstock_client.Client", "penstock_client.Simulation.send"} <= pages[site / "api" / "client.html"].anchors
    assert "penstock_server.study.SampleSpec" in pages[site / "api" / "server.html"].anchors
    assert "penstock-run" in pages[site / "command-line.html"].anchors


def test_the_readme_links_to_files_that_exist() -> None:
    links = re.findall(r"\]\(([^)#]+)", (ROOT / "README.md").read_text())
    assert [link for link in links if not urlsplit(link).scheme and not (ROOT / link).exists()] == []


@pytest.mark.parametrize("package", ["server/penstock_server", "deploy/penstock", "solver_adapters/penstock_solvers"])
def test_the_architecture_page_names_every_room(package: str) -> None:
    page = (ROOT / "docs" / "architecture.md").read_text()
    rooms = [path.parent.name for path in (ROOT / package).glob("*/__init__.py")]
    assert rooms
    assert [room for room in rooms if f"`{room}`" not in page] == []
