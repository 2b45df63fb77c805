"""The study file: reading it, overriding it from the command line, writing it back resolved."""

from __future__ import annotations

import os
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import tomli_w
from pydantic import ValidationError

from penstock.study.errors import StudyError, problems_of, shown
from penstock_server.study import Study

STUDY = "study.toml"


def load_study(path: Path | str, overrides: Sequence[str] = ()) -> Study:
    """Read a study file.

    Args:
        path: the TOML file, or the folder that holds it as study.toml. Relative paths in it (solver.case,
            parameters.file, a command's ./program) start at its folder.
        overrides: "table.key=value" each, or "table={...}" for a whole table; a value that is no TOML is a string.

    Raises:
        StudyError: with one line for each problem that was found.
    """
    path = Path(path)
    if is_file(path / STUDY):
        path /= STUDY
    data = read_toml(path)
    for text in overrides:
        _override(data, text)
    try:
        study = Study.model_validate({"directory": ".", **data})
    except ValidationError as error:
        overridden = [tuple(text.split("=", 1)[0].strip().split(".")) for text in overrides]
        raise StudyError(
            [
                f"{'--set' if any(_within(where, key) for key in overridden) else path}: {line}"
                for where, line in problems_of(error, data)
            ]
        ) from error
    return _with_absolute_paths(study, (path.parent / study.directory).resolve())


def is_file(path: Path) -> bool:
    """Whether a path is a file; False also where it is too long for one, or its folder may not be read."""
    try:
        return path.is_file()
    except OSError:
        return False


def write_resolved(study: Study, path: Path) -> None:
    """Write a study as it runs: overrides applied, defaults written out, paths absolute.

    `load_study` reads it back unchanged.
    """
    path.write_bytes(resolved(study).encode())


def resolved(study: Study) -> str:
    """Give the text that `write_resolved` writes. Two studies are the same if their texts are."""
    data = study.model_dump(mode="json", exclude_none=True)
    data["parameters"] |= data["parameters"].pop("bounds") | dict.fromkeys(data["parameters"].pop("seeds"), "seed")
    return tomli_w.dumps({"directory": study.directory, **data})


def make_importable(study: Study) -> None:
    """Make modules beside the study file importable, for "module:Class", here and in processes started from here."""
    if study.directory not in sys.path:
        sys.path.insert(0, study.directory)
    paths = os.environ.get("PYTHONPATH", "").split(os.pathsep)
    if study.directory not in paths:
        os.environ["PYTHONPATH"] = os.pathsep.join([study.directory, *filter(None, paths)])


def read_toml(path: Path, what: str = "study file") -> dict[str, Any]:
    """Read a TOML file.

    Args:
        path: the file.
        what: it is, for messages.

    Returns:
        Its tables.

    Raises:
        StudyError: it cannot be read, or is no TOML.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except IsADirectoryError as error:
        example = path / f"{what.removesuffix(' file')}.toml"
        raise StudyError([f"{path}: is a folder, expected a {what}; give {example}"]) from error
    except OSError as error:
        raise StudyError(
            [f"{path}: cannot read the {what} ({error.strerror}); give the path of a TOML file"]
        ) from error
    except UnicodeDecodeError as error:
        raise StudyError(
            [f"{path}: byte {error.start} is not UTF-8, expected a TOML file; save it as UTF-8"]
        ) from error
    except tomllib.TOMLDecodeError as error:
        raise StudyError([f"{path}: not valid TOML: {error}; correct that line (see https://toml.io)"]) from error


def _override(data: dict[str, Any], text: str) -> None:
    """Apply "table.key=value" to the tables of a study file."""
    name, equals, given = text.partition("=")
    keys = [key.strip() for key in name.split(".")]
    try:
        value = tomllib.loads(f"value = {given}")["value"]
    except tomllib.TOMLDecodeError:
        value = given
    if not equals or not all(keys) or (len(keys) == 1 and not isinstance(value, dict)):
        raise StudyError([f"--set {text}: expected table.key=value, for example --set training.batch_size=64"])
    table: Any = data
    for depth, key in enumerate(keys[:-1], start=1):
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise StudyError(
                [
                    f"--set {text}: {'.'.join(keys[:depth])} = {shown(table)} is no table; "
                    f"set {'.'.join(keys[:depth])} itself"
                ]
            )
    table[keys[-1]] = value


def settings_of(overrides: Sequence[str]) -> dict[str, Any]:
    """Parse overrides.

    Args:
        overrides: "table.key=value" each.

    Returns:
        table.key to value.

    Raises:
        StudyError: an override has another form.
    """
    out: dict[str, Any] = {}
    for text in overrides:
        data: dict[str, Any] = {}
        _override(data, text)
        name = text.partition("=")[0].strip()
        value: Any = data
        for key in name.split("."):
            value = value[key.strip()]
        out[name] = value
    return out


def _within(path: Sequence[str | int], key: tuple[str, ...]) -> bool:
    return tuple(path[: len(key)]) == key


def _with_absolute_paths(study: Study, directory: Path) -> Study:
    def absolute(text: str | None) -> str | None:
        return None if text is None else str((directory / text).resolve())

    command = study.solver.command
    if command is not None and "/" in command[0]:
        # Not resolved: a virtual environment's python is a link and must be called by its own name.
        command = [os.path.normpath(directory / command[0]), *command[1:]]
    changed: Mapping[str, Any] = {
        "directory": str(directory),
        "parameters": study.parameters.model_copy(update={"file": absolute(study.parameters.file)}),
        "solver": study.solver.model_copy(update={"case": absolute(study.solver.case), "command": command}),
        "training": study.training.model_copy(update={"source": absolute(study.training.source)}),
    }
    return study.model_copy(update=changed)
