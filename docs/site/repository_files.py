"""mkdocs hook: gives each repository file that a page links to a page of the site.

The pages are read in the repository as well, where a link such as `../examples/heat/study.toml` leads to the file. A
link to a file that does not exist fails the build.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from posixpath import normpath
from typing import TYPE_CHECKING

from mkdocs.structure.files import File, Files, InclusionLevel

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.pages import Page

ROOT = Path(__file__).parents[2]
LINK = re.compile(r"(?<=\]\()((?:\.\./)+[^)#\s]+)")
LANGUAGES = {
    ".py": "python",
    ".toml": "toml",
    ".h": "c",
    ".c": "c",
    ".C": "c++",
    ".H": "c++",
    ".f90": "fortran",
    ".json": "json",
}


def repository_path(link: str, page: str) -> str | None:
    """The path from the repository's root that a link means, or None where it stays inside docs/ or names no file.

    Args:
        link: the link's target as the page has it, without an anchor.
        page: the page's path inside docs/.
    """
    target = normpath(f"docs/{os.path.dirname(page)}/{link}")  # noqa: PTH120
    if target.startswith(("docs/", "..")) or not (ROOT / target).is_file():
        return None
    return target


def shown_as(target: str) -> str:
    """Where the site has the page of a repository file."""
    return f"source/{target}.md"


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add a page for each repository file that some page links to."""
    targets = {
        target
        for page in files.documentation_pages()
        for link in LINK.findall(page.content_string)
        if (target := repository_path(link, page.src_uri))
    }
    for target in sorted(targets):
        text = (ROOT / target).read_text()
        if not target.endswith(".md"):
            language = LANGUAGES.get(Path(target).suffix, "")
            text = f"---\nsearch:\n  exclude: true\n---\n# {target}\n\n````{language}\n{text.rstrip()}\n````\n"
        files.append(File.generated(config, shown_as(target), content=text, inclusion=InclusionLevel.NOT_IN_NAV))
    return files


def on_page_markdown(markdown: str, page: Page, config: MkDocsConfig, files: Files) -> str:
    """Lead links to repository files to their pages."""
    del config, files
    here = page.file.src_uri

    def replaced(match: re.Match[str]) -> str:
        target = repository_path(match[1], here)
        if target is None:
            return match[1]
        return os.path.relpath(shown_as(target), os.path.dirname(here) or ".")  # noqa: PTH120

    return LINK.sub(replaced, markdown)
