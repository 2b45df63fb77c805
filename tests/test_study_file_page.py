"""docs/study-file.md names every key of the study file, with the default that the code has, and no other key."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import pytest
from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from penstock_server.study import FieldSection, NamedOptions, Study, parse_bytes
from penstock_server.study.section import parse_seconds
from penstock_server.study.solver import EntrySection

PAGE = (Path(__file__).parents[1] / "docs" / "study-file.md").read_text()
SECTIONS = {
    **{f"[{name}]": f.annotation for name, f in Study.model_fields.items() if name not in ("fields", "directory")},
    "[fields]": FieldSection,
    "[solver.entries]": EntrySection,
}


def rows(heading: str) -> dict[str, str]:
    """Key to default, as the section's table gives them."""
    section = re.split(r"^#+ ", PAGE.split(f"# {heading}\n", 1)[1], maxsplit=1, flags=re.MULTILINE)[0]
    found = re.findall(r"^\| `(\w+)` \|[^|]*\|([^|]*)\|", section, flags=re.MULTILINE)
    return {key: default.strip().strip("`") for key, default in found}


def shown(text: str, key: str) -> object:
    """A default as the study file would be read with it."""
    value = tomllib.loads(f"value = {text}")["value"]
    if isinstance(value, dict) and "name" in value:
        return NamedOptions(**value)
    if isinstance(value, str) and value[0].isdigit() and " " in value:
        return parse_bytes(value) if key in ("credit", "max_message") else parse_seconds(value)
    return value


@pytest.mark.parametrize("heading", SECTIONS)
def test_every_key_with_its_default(heading: str) -> None:
    model = SECTIONS[heading]
    assert isinstance(model, type)
    assert issubclass(model, BaseModel)
    keys = {name: field for name, field in model.model_fields.items() if name not in ("bounds", "seeds")}
    table = rows(heading)
    assert table.keys() == keys.keys()
    for key, field in keys.items():
        if field.default is PydanticUndefined:
            assert table[key] == "required", key
        elif field.default is None:
            assert table[key] == "none", key
        else:
            assert shown(table[key], key) == field.default, key
