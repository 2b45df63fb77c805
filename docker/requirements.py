"""Print what the package requires with the extras that are given as arguments, a line each.

The build installs this before it copies the sources, so that a change of them is built in seconds.
"""

from __future__ import annotations

import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any


def required(project: dict[str, Any], extras: list[str]) -> Iterator[str]:
    """Requirements of the package with some extras, an extra that names the package's own extras included."""
    yield from project["dependencies"]
    for extra in extras:
        for requirement in project["optional-dependencies"][extra]:
            name, bracket, rest = requirement.partition("[")
            if name == project["name"] and bracket:
                yield from required(project, rest.removesuffix("]").split(","))
            else:
                yield requirement


if __name__ == "__main__":
    found = required(tomllib.loads(Path("pyproject.toml").read_text())["project"], sys.argv[1:])
    print("\n".join(dict.fromkeys(found)))
