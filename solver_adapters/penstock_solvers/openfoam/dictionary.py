"""Reading OpenFOAM dictionaries and setting entries in them, with PyFoam.

A dotted path names an entry, such as "boundaryField.movingWall.value". Each of its names may contain dots itself
("alpha.water"), be a pattern as written in the dictionary ('"wall.*"'), or be the index of a list element
("vertices.2").
"""

from __future__ import annotations

import functools
import gzip
import itertools
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from penstock_client.nearest import close_names
from penstock_solvers.processes import SolverFailed

_TOKEN = re.compile(r"""//[^\n]*|/\*.*?\*/|"(?:\\.|[^"\\])*"|[{}()\[\];]|(?:(?!//|/\*)[^\s{}()\[\];"])+""", re.S)
_SWITCHES = {"on": True, "yes": True, "true": True, "off": False, "no": False, "false": False}
# Elements; longer lists (fields) are kept as text, because parsing them takes minutes and no parameter sets their
# elements.
LONG_LIST = 100


class CaseError(SolverFailed):
    """An OpenFOAM case, or a setting of the study about it, cannot be used."""


class PyFoamMissing(CaseError):
    """PyFoam is not installed."""


@functools.cache
def _pyfoam() -> Any:
    """Import PyFoam's module of dictionaries, on first use: it is optional and slow to import."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # invalid escape sequences in PyFoam's own source
            from PyFoam.Basics import DataStructures, PlyParser
            from PyFoam.RunDictionary import ParsedParameterFile
    except ImportError as error:
        raise PyFoamMissing(
            f"the OpenFOAM adapter needs PyFoam ({error}); install it with: pip install 'penstock[openfoam]'"
        ) from error
    # PyFoam would write vectors and tensors with 6 digits, and "0 (1 2 3)" in a list as the repr of a Python object.
    DataStructures.FixedLength.__str__ = lambda self: _list_text(self.vals)
    ParsedParameterFile.NotAPrelist.__str__ = lambda self: f"{self.a} {_list_text(self.b)}"
    # The parser would write its tables to a folder under /tmp each time and never read them.
    PlyParser.getUserTempDir = lambda: ""
    PlyParser.yacc.yacc = functools.partial(PlyParser.yacc.yacc, write_tables=False)
    return ParsedParameterFile


def _list_text(value: Any) -> str:
    return f"({' '.join(map(_list_text, value))})" if isinstance(value, list) else str(value)


class FoamDictionary:
    """One file of a case, which is read once; entries can be set and the result written to any file.

    Args:
        path: path of the file, without ".gz" if it is compressed.
        name: name of the file in messages, such as "0/U"; default: `path`.

    Attributes:
        name: name of the file in messages.

    Raises:
        CaseError: the file does not exist or is not an OpenFOAM dictionary.
    """

    def __init__(self, path: Path, name: str | None = None) -> None:
        pyfoam = _pyfoam()
        self.name = name or str(path)
        if not path.is_file() and not path.with_name(path.name + ".gz").is_file():
            raise CaseError(f"{self.name} does not exist")
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PLY's, about PyFoam's grammar
                self._file = pyfoam.ParsedParameterFile(
                    str(path), listLengthUnparsed=LONG_LIST, longListOutputThreshold=0
                )
                written = str(self._file)
        except (
            Exception,
            SystemExit,
        ) as error:  # PyFoam raises errors of many types, Exception and SystemExit among them
            raise CaseError(f"{self.name} is not a dictionary that can be read: {_one_line(error)}") from error
        self._unfaithful = _first_difference(_read(path), written)

    def get(self, key: str) -> Any:
        """Return the value of a top-level entry in PyFoam's representation, or None if there is no such entry."""
        return self._file.content.get(key)

    def set(self, entry: str, text: str) -> None:
        """Set an existing entry.

        Args:
            entry: dotted path of the entry.
            text: its new text, which is written unchanged.

        Raises:
            CaseError: the entry does not exist, is a dictionary, or is matched by a pattern only; or PyFoam would
                change the rest of the file.
        """
        container, key = self._find(entry)
        self._require_faithful()
        container[key] = _pyfoam().Unparsed(text)  # PyFoam would put plain text with a slash in quotes

    def check(self, entry: str) -> None:
        """Check that `set` would succeed.

        Args:
            entry: dotted path of the entry.

        Raises:
            CaseError: see `set`.
        """
        self._find(entry)
        self._require_faithful()

    def write(self, path: Path) -> None:
        """Write the dictionary with its changes.

        Args:
            path: the file to write; an existing file or link is replaced.
        """
        path.unlink(missing_ok=True)
        path.write_text(str(self._file), encoding="utf-8")

    def entries(self) -> list[str]:
        """Return the dotted paths of all entries that can be set."""
        return list(_paths(self._file.content, ""))

    def _require_faithful(self) -> None:
        """Raise CaseError if PyFoam would change other parts of the file: it does not preserve every construct."""
        if self._unfaithful is not None:
            before, after = self._unfaithful
            raise CaseError(
                f"{self.name} cannot be rewritten safely: PyFoam would turn {before!r} into {after!r}; "
                "simplify that place, or move it to a file of its own and #include it"
            )

    def _find(self, entry: str) -> tuple[Any, Any]:
        container, rest = self._file.content, entry.split(".")
        while True:
            step = _step(container, rest)
            if step is None:
                raise CaseError(self._missing(container, rest, entry))
            key, used = step
            value, rest = _value(container, key), rest[used:]
            if not rest:
                if isinstance(value, dict):
                    inside = ", ".join(_paths(value, entry + ".")) or "none"
                    raise CaseError(
                        f"{self.name}: {entry!r} is a dictionary, not a value; name one of its entries: {inside}"
                    )
                return container, key
            container = value

    def _missing(self, container: Any, rest: list[str], entry: str) -> str:
        for pattern, expression, _ in getattr(container, "_regex", ()):
            if any(expression.fullmatch(".".join(rest[:n])) for n in range(1, len(rest) + 1)):
                return (
                    f"{self.name} has no entry {entry!r} of its own, only the pattern {pattern}; name the pattern, "
                    f"which sets it for all that it covers, or give {rest[0]!r} its own entry in the case"
                )
        known = self.entries()
        last = entry.rpartition(".")[2]
        near = close_names(entry, known, 3, 0.5) or [k for k in known if k.rpartition(".")[2] == last][:3]
        hint = f"nearest: {', '.join(near)}" if near else f"it has: {', '.join(known[:10]) or 'nothing'}"
        return f"{self.name} has no entry {entry!r}; {hint}"


def _read(path: Path) -> str:
    if path.is_file():
        return path.read_text(encoding="latin-1")
    return gzip.decompress(path.with_name(path.name + ".gz").read_bytes()).decode("latin-1")


def _first_difference(original: str, written: str) -> tuple[object, object] | None:
    pairs = itertools.zip_longest(_tokens(original), _tokens(written))
    return next(((before, after) for before, after in pairs if before != after), None)


def _tokens(text: str) -> Iterator[str | float | bool]:
    """Yield the tokens that OpenFOAM would read: words, and numbers and switches by value."""
    last = ""
    for match in _TOKEN.finditer(text):
        token = match[0]
        if token.startswith(("//", "/*")) or (token == ";" and last in ("}", ";")):
            continue
        last = token
        try:
            yield float(token)
        except ValueError:
            yield _SWITCHES.get(token, token)


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__


def _step(container: Any, names: list[str]) -> tuple[Any, int] | None:
    """Return the next key of a path and the number of dotted names that it consists of; the longest match wins."""
    if isinstance(container, dict):
        patterns = {pattern for pattern, _, _ in getattr(container, "_regex", ())}
        for used in range(len(names), 0, -1):
            key = ".".join(names[:used])
            if dict.__contains__(container, key) or (key in patterns and isinstance(_value(container, key), dict)):
                return key, used
    elif _indexable(container) and names[0].isdecimal() and int(names[0]) < len(container):
        return int(names[0]), 1
    return None


def _value(container: Any, key: Any) -> Any:
    if isinstance(container, dict) and not dict.__contains__(container, key):
        return next(value for pattern, _, value in container._regex if pattern == key)  # type: ignore[attr-defined]
    return container[key]


def _indexable(value: Any) -> bool:
    return isinstance(value, list) and not hasattr(value, "data")


def _paths(value: Any, prefix: str) -> Iterator[str]:
    if isinstance(value, dict):
        patterns = [(pattern, inner) for pattern, _, inner in getattr(value, "_regex", ()) if isinstance(inner, dict)]
        for key, inner in [*dict.items(value), *patterns]:
            if isinstance(key, str):  # PyFoam's keys for comments and includes have other types
                yield from _paths(inner, f"{prefix}{key}.") if isinstance(inner, dict) else [prefix + key]


def unzip(path: Path) -> None:
    """Unpack a file "name.gz" to "name" and delete it. An existing "name" is kept.

    Args:
        path: the compressed file.
    """
    plain = path.with_suffix("")
    if not plain.exists():
        plain.write_bytes(gzip.decompress(path.read_bytes()))
    path.unlink()
