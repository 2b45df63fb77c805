"""Setting entries of OpenFOAM dictionaries: the bytes of one value change, and no others.

A dotted path names an entry, such as "boundaryField.movingWall.value". Each of its names may contain dots itself
("alpha.water"), be a pattern as written in the dictionary ('"wall.*"'), be the index of an element ("vertices.2",
"value.0" for the first component in "uniform (1 0 0)"), or name an element that has a dictionary.
"""

from __future__ import annotations

import gzip
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from penstock_client.nearest import close_names
from penstock_solvers.openfoam.errors import CaseError
from penstock_solvers.openfoam.scan import Element, Item, Kind, elements, line_of, scan

__all__ = ["CaseError", "FoamDictionary", "unzip"]

_INCLUDE = re.compile(r'# *s?include(?:IfPresent)?\s*"([^"]+)"')


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
        self.name = name or str(path)
        self._path = path
        self._changes: dict[tuple[int, int], bytes] = {}
        try:
            self._data = read_bytes(path)
        except FileNotFoundError:
            raise CaseError(f"{self.name} does not exist") from None
        except OSError as error:
            raise CaseError(f"{self.name} cannot be read: {error.strerror or error}") from error
        try:
            self._items = scan(self._data)
        except (CaseError, RecursionError) as error:
            raise CaseError(f"{self.name} is not a dictionary that can be read: {error}") from error

    @property
    def items(self) -> tuple[Item, ...]:
        """The items of the file as it was read."""
        return self._items

    def get(self, entry: str) -> str | None:
        """Return the text of an entry as the file has it, without comments around it; None if there is no such entry."""
        try:
            first, last = self._find(entry)
        except CaseError:
            return None
        return self._data[first:last].decode("utf-8", "replace")

    def set(self, entry: str, text: str) -> None:
        """Set an existing entry.

        Args:
            entry: dotted path of the entry.
            text: its new text, which is written unchanged.

        Raises:
            CaseError: the entry does not exist, is a dictionary, is matched by a pattern only, or may be set by another
                line of the dictionary as well.
        """
        span = self._find(entry)
        for first, last in self._changes:
            if (first, last) != span and first < span[1] and span[0] < last:
                raise CaseError(
                    f"{self.name} line {line_of(self._data, span[0])}: {entry!r} overlaps with another entry that is "
                    "set; set the whole value or its elements, not both"
                )
        self._changes[span] = text.encode()

    def check(self, entry: str) -> None:
        """Check that `set` would succeed.

        Args:
            entry: dotted path of the entry.

        Raises:
            CaseError: see `set`.
        """
        self._find(entry)

    def bytes(self) -> bytes:
        """Return the file with its changes."""
        parts, at = [], 0
        for (first, last), text in sorted(self._changes.items()):
            apart = b" " if first == last else b""  # a keyword that had no value
            parts += [self._data[at:first], apart, text]
            at = last
        return b"".join([*parts, self._data[at:]])

    def write(self, path: Path) -> None:
        """Write the dictionary with its changes.

        Args:
            path: the file to write; an existing file or link is replaced, and so is a compressed one beside it.
        """
        executable = path.is_file() and path.stat().st_mode & 0o111
        path.unlink(missing_ok=True)
        path.with_name(path.name + ".gz").unlink(missing_ok=True)
        path.write_bytes(self.bytes())
        if executable:
            path.chmod(0o755)

    def entries(self) -> list[str]:
        """Return the dotted paths of all entries that can be set, without elements of lists."""
        return list(dict.fromkeys(_paths(self._items, "")))

    def place(self, entry: str) -> str:
        """Return the file and line of an entry, for messages."""
        return f"{self.name} line {line_of(self._data, self._find(entry)[0])}"

    def _find(self, entry: str) -> tuple[int, int]:
        found = self._in_items(self._items, entry, entry)
        if found is None:
            raise CaseError(self._missing(entry))
        return found

    def _in_items(self, items: Sequence[Item], rest: str, entry: str) -> tuple[int, int] | None:
        """Find the value that OpenFOAM reads: of two equal entries the last, of two equal dictionaries both."""
        for item, behind in _candidates(items, rest):
            if item.kind is Kind.DICTIONARY:
                if behind is None:
                    self._is_dictionary(item.items, entry)
                assert behind is not None
                found = self._in_items(item.items, behind, entry)
            elif behind is None and item.kind is Kind.VALUE:
                found = item.first, item.last
            else:
                found = self._in_value(item, behind or "", entry)
            if found is not None:
                self._require_the_only_one(items, item, rest, entry)
                return found
        lists = [item for item in items if item.kind is Kind.LIST]
        return self._in_elements(elements(self._data, lists[0].first, lists[0].last), rest, entry) if lists else None

    def _in_value(self, item: Item, rest: str, entry: str) -> tuple[int, int] | None:
        parts = elements(self._data, item.first, item.last)
        lists = [part for part in parts if self._is_list(part)]
        return self._in_elements(self._inside(lists[0]) if len(lists) == 1 else parts, rest, entry)

    def _in_elements(self, parts: Sequence[Element], rest: str, entry: str) -> tuple[int, int] | None:
        index, _, behind = rest.partition(".")
        if index.isdecimal():
            chosen = [(parts[int(index)], behind)] if int(index) < len(parts) else []
        else:
            named = [part for part in parts if part.items is not None and _continues(rest, part.key)]
            chosen = [(part, rest[len(part.key) + 1 :]) for part in named]
        for part, behind in chosen:
            if part.items is not None:
                if not behind:
                    self._is_dictionary(part.items, entry)
                return self._in_items(part.items, behind, entry)
            if not behind:
                return part.first, part.last
            if self._is_list(part):
                return self._in_elements(self._inside(part), behind, entry)
        return None

    def _is_list(self, part: Element) -> bool:
        return part.items is None and re.match(rb"\d*\(", self._data[part.first : part.last]) is not None

    def _inside(self, part: Element) -> list[Element]:
        return elements(self._data, self._data.index(b"(", part.first) + 1, part.last - 1)

    def _is_dictionary(self, items: Sequence[Item], entry: str) -> None:
        inside = ", ".join(dict.fromkeys(_paths(items, entry + "."))) or "none"
        raise CaseError(f"{self.name}: {entry!r} is a dictionary, not a value; name one of its entries: {inside}")

    def _require_the_only_one(self, items: Sequence[Item], found: Item, rest: str, entry: str) -> None:
        """Raise CaseError if another line decides, or may decide, what OpenFOAM reads for the entry."""
        at = line_of(self._data, found.start)
        if found.condition is not None:
            condition = self._data[found.condition :].split(b"\n", 1)[0].decode("utf-8", "replace").strip()
            raise CaseError(
                f"{self.name} line {at}: {entry!r} depends on {condition!r} in line "
                f"{line_of(self._data, found.condition)}; move the entry out of the condition"
            )
        for item in items[items.index(found) + 1 :]:
            if self._may_set(item, items, rest):
                raise CaseError(
                    f"{self.name} line {line_of(self._data, item.start)}: {item.key} comes after {entry!r} (line {at}) "
                    "and sets it again; set it there, or move that line above the entry"
                )

    def _may_set(self, item: Item, items: Sequence[Item], rest: str) -> bool:
        if item.kind is Kind.MACRO:
            name = item.key.strip("${}").lstrip(".:")
            sources = [s for s in (*items, *self._items) if s.key == name and s.kind is Kind.DICTIONARY]
            return any(any(_candidates(source.items, rest)) for source in sources)
        if item.kind is not Kind.DIRECTIVE:
            return False
        if item.key.startswith("#remove"):
            name = rest.split(".")[0]
            used = re.search(rb"\$[.:{]*" + re.escape(name.encode()), self._data) is not None  # before it is removed
            return not used and name in re.findall(r"[^\s()\"]+", item.key[7:])
        included = _INCLUDE.match(item.key)
        path = self._path.parent / included[1] if included else None
        try:
            return path is not None and path.is_file() and any(_candidates(scan(path.read_bytes()), rest))
        except CaseError:
            return False

    def _missing(self, entry: str) -> str:
        items, rest = _deepest(self._items, entry)
        for item in items:
            pattern = item.key.strip('"')
            if item.key.startswith('"') and any(_matches(pattern, name) for name in _prefixes(rest)):
                first = rest.partition(".")[0]
                return (
                    f"{self.name} has no entry {entry!r} of its own, only the pattern {item.key}; name the pattern, "
                    f"which sets it for all that it covers, or give {first!r} its own entry in the case"
                )
        known = self.entries()
        last = entry.rpartition(".")[2]
        near = close_names(entry, known, 3, 0.5) or [k for k in known if k.rpartition(".")[2] == last][:3]
        hint = f"nearest: {', '.join(near)}" if near else f"it has: {', '.join(known[:10]) or 'nothing'}"
        sources = [i for i in items if i.kind is Kind.MACRO or (i.kind is Kind.DIRECTIVE and "include" in i.key)]
        if sources:
            lines = ", ".join(f"{i.key.strip()} (line {line_of(self._data, i.start)})" for i in sources)
            hint += f"; it may come from {lines}: set it where it is written, or write it here below that line"
        return f"{self.name} has no entry {entry!r}; {hint}"


def read_bytes(path: Path) -> bytes:
    """Read a file that may be compressed as "path.gz"."""
    if path.is_file():
        return path.read_bytes()
    return gzip.decompress(path.with_name(path.name + ".gz").read_bytes())


def _continues(path: str, name: str) -> bool:
    return path == name or path.startswith(name + ".")


def _candidates(items: Sequence[Item], path: str) -> Iterator[tuple[Item, str | None]]:
    """Yield the items that a path may begin with, and the rest of the path: longest names first, the last item first."""
    entries = [i for i in reversed(items) if i.kind in (Kind.VALUE, Kind.DICTIONARY) and _continues(path, i.key)]
    entries.sort(key=lambda item: -len(item.key))
    for item in entries:
        yield item, None if path == item.key else path[len(item.key) + 1 :]


def _deepest(items: Sequence[Item], path: str) -> tuple[Sequence[Item], str]:
    for item, rest in _candidates(items, path):
        if item.kind is Kind.DICTIONARY and rest is not None:
            return _deepest(item.items, rest)
    return items, path


def _prefixes(path: str) -> list[str]:
    names = path.split(".")
    return [".".join(names[:n]) for n in range(1, len(names) + 1)]


def _matches(pattern: str, name: str) -> bool:
    try:
        return re.fullmatch(pattern, name) is not None
    except re.error:
        return False


def _paths(items: Sequence[Item], prefix: str) -> Iterator[str]:
    for item in items:
        if item.kind is Kind.DICTIONARY and item.key != "FoamFile":
            yield from _paths(item.items, f"{prefix}{item.key}.")
        elif item.kind is Kind.VALUE:
            yield prefix + item.key


def unzip(path: Path) -> None:
    """Unpack a file "name.gz" to "name" and delete it. An existing "name" is kept.

    Args:
        path: the compressed file.
    """
    plain = path.with_suffix("")
    if not plain.exists():
        plain.write_bytes(gzip.decompress(path.read_bytes()))
    path.unlink()
