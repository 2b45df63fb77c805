"""OpenFOAM's dictionary syntax, read from bytes: where each entry's value begins and ends.

Nothing is interpreted. Macros, directives, code blocks, binary fields and comments are passed over, so that one value
can be replaced and every other byte stays as it is.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass, field
from enum import Enum

from penstock_solvers.openfoam.errors import CaseError

_BLANK = re.compile(rb"(?:\s|//[^\n]*|/\*(?s:.*?)\*/)*")
_STRING = re.compile(rb'"(?:[^"\\]|\\.)*"', re.S)
_CODE = re.compile(rb"#\{.*?#\}", re.S)
_DIRECTIVE = re.compile(rb"#[ \t]*[A-Za-z]\w*")
_COMMENT = re.compile(rb"//[^\n]*|/\*.*?\*/", re.S)
_MARKS = re.compile(rb'[(){}\[\];"#/]')  # bytes that mean something inside a value
_REST_OF_WORD = re.compile(rb'[^\s(){};"/]+')
_COUNT = re.compile(rb"\d+(?=\()")
_COUNTED_LIST = re.compile(rb"(?:List<\w+>\s*)?\d*\s*\(")
_BINARY_LIST = re.compile(rb"List<(\w+)>\s*(\d+)\s*\(")
_COMPONENTS = {b"scalar": 1, b"vector": 3, b"sphericalTensor": 1, b"symmTensor": 6, b"tensor": 9, b"label": 1}
_PAIRS = {ord("("): ord(")"), ord("{"): ord("}"), ord("["): ord("]")}
_CONDITIONS = {b"#if", b"#ifeq", b"#ifdef"}


class Kind(Enum):
    """What an item of a dictionary is."""

    VALUE = "value"
    DICTIONARY = "dictionary"
    LIST = "list"  # a list without a keyword, as in polyMesh/boundary
    MACRO = "macro"  # $name; takes over the entries of another dictionary
    DIRECTIVE = "directive"  # #include and others


@dataclass(frozen=True)
class Item:
    """One item of a dictionary.

    Attributes:
        kind: what it is.
        key: the keyword as written, with its quotes; the text of a macro or directive.
        start: position of its first byte.
        first: position of the value's first byte; of a dictionary's, behind the brace.
        last: position behind the value's last byte.
        items: the items of a dictionary.
        condition: position of the #if that decides whether OpenFOAM reads the item; None: it always does.
    """

    kind: Kind
    key: str
    start: int
    first: int
    last: int
    items: tuple[Item, ...] = ()
    condition: int | None = None


@dataclass(frozen=True)
class Element:
    """One element of a list: a number, word, string, list, or a name with the dictionary that follows it.

    Attributes:
        first: position of its first byte.
        last: position behind its last byte.
        key: the name in front of a dictionary.
        items: the dictionary's items; None for other elements.
    """

    first: int
    last: int
    key: str = ""
    items: tuple[Item, ...] | None = None


def line_of(data: bytes, position: int) -> int:
    """Return the number of the line that a position lies in, from 1."""
    return data.count(b"\n", 0, position) + 1


@functools.lru_cache(maxsize=16)
def scan(data: bytes) -> tuple[Item, ...]:
    """Find all items of a dictionary file.

    Args:
        data: the whole file.

    Returns:
        The items, in the file's order.

    Raises:
        CaseError: the file is not a dictionary; the text begins with "line N: ".
    """
    return _Scanner(data).items(None)


def elements(data: bytes, first: int, last: int) -> list[Element]:
    """Find the elements of a list, or of a value that is several words.

    Args:
        data: the whole file.
        first: position of the first byte inside the list's brackets.
        last: position behind the last one.

    Returns:
        The elements.

    Raises:
        CaseError: brackets do not match; the text begins with "line N: ".
    """
    return _Scanner(data[:last], first).elements()


@dataclass
class _Scanner:
    data: bytes
    at: int = 0
    binary: bool = False
    numbers: tuple[int, int] = (4, 8)  # bytes of a label and of a scalar
    _conditions: list[int] = field(default_factory=list)

    def fail(self, position: int, trouble: str) -> CaseError:
        return CaseError(f"line {line_of(self.data, position)}: {trouble}")

    def skip(self) -> int:
        """Pass over white space and comments; return the next byte, or -1 at the end."""
        match = _BLANK.match(self.data, self.at)
        assert match is not None
        self.at = match.end()
        return self.data[self.at] if self.at < len(self.data) else -1

    def text(self, first: int, last: int) -> str:
        return self.data[first:last].decode("utf-8", "replace")

    def items(self, opened: int | None) -> tuple[Item, ...]:
        """Read the items up to the brace that closes a dictionary, or up to the end of the file."""
        found: list[Item] = []
        depth = len(self._conditions)
        while (byte := self.skip()) != -1:
            if byte == ord("}"):
                if opened is None:
                    raise self.fail(self.at, "'}' closes nothing")
                self.at += 1
                del self._conditions[depth:]
                return tuple(found)
            if byte == ord(";"):
                self.at += 1
            elif byte == ord("#"):
                found += self._directive()
            else:
                found.append(self._entry(top=opened is None))
                if opened is None and len(found) == 1 and found[0].key == "FoamFile":
                    self._read_header(found[0])
        if opened is not None:
            raise self.fail(opened, "'{' is never closed")
        return tuple(found)

    def _read_header(self, header: Item) -> None:
        values = {item.key: self.data[item.first : item.last] for item in header.items}
        self.binary = values.get("format") == b"binary"
        sizes = dict(re.findall(rb"(label|scalar)=(\d+)", values.get("arch", b"")))
        self.numbers = int(sizes.get(b"label", 32)) // 8, int(sizes.get(b"scalar", 64)) // 8

    def _directive(self) -> list[Item]:
        start = self.at
        match = _DIRECTIVE.match(self.data, start)
        if match is None:
            raise self.fail(start, f"{self.text(start, start + 12)!r} is no directive")
        self.at = match.end()
        name = match[0].replace(b" ", b"")
        if name in _CONDITIONS:
            self._conditions.append(start)
            self._line()
        elif name == b"#endif":
            if self._conditions:
                self._conditions.pop()
        elif name != b"#else":
            self.skip()
            self._token()
        else:
            return []
        return [Item(Kind.DIRECTIVE, self.text(start, self.at), start, match.end(), self.at)]

    def _line(self) -> None:
        """Pass over the rest of the line, and of brackets that are opened in it."""
        end = self.data.find(b"\n", self.at)
        end = len(self.data) if end < 0 else end
        while (mark := _MARKS.search(self.data, self.at, end)) is not None:
            self.at = mark.start()
            self._mark(mark[0])
            end = max(end, self.at)
        self.at = end

    def _entry(self, top: bool) -> Item:
        start = self.at
        condition = self._conditions[-1] if self._conditions else None
        if top and (match := _COUNTED_LIST.match(self.data, start)):
            self.at = match.end() - 1
            if self.binary:
                raise self.fail(start, "a binary list cannot be read here")
            self._bracket()
            return Item(Kind.LIST, "", start, match.end(), self.at - 1, (), condition)
        read = self._word if self.data[start] != ord('"') else self._token
        read()
        if self.at == start:
            raise self.fail(start, f"{self.text(start, start + 1)!r} stands where a keyword is expected")
        key, behind = self.text(start, self.at), self.at
        byte = self.skip()
        if byte == ord("{"):
            self.at += 1
            first = self.at
            inner = self.items(first - 1)
            return Item(Kind.DICTIONARY, key, start, first, self.at - 1, inner, condition)
        ended = byte in (ord(";"), ord("}"), -1) or b"\n" in self.data[behind : self.at]
        if key.startswith("$") and ended:
            return Item(Kind.MACRO, key, start, start, behind, (), condition)
        if byte == -1:
            raise self.fail(start, f"{key!r} is followed by nothing: expected a value and ';'")
        first, last = self._value(key, start)
        return Item(Kind.VALUE, key, start, first, last, (), condition)

    def _word(self) -> None:
        """Pass over a word, with brackets that are part of it, as in div(phi,U) or ${name}."""
        while self.at < len(self.data):
            byte = self.data[self.at]
            if byte == ord("(") or (byte == ord("{") and self.data[self.at - 1] == ord("$")):
                self._bracket()
            elif byte == ord("/") and self.data[self.at : self.at + 2] not in (b"//", b"/*"):
                self.at += 1
            elif match := _REST_OF_WORD.match(self.data, self.at):
                self.at = match.end()
            else:
                return

    def _value(self, key: str, start: int) -> tuple[int, int]:
        first = last = self.at
        while (byte := self.skip()) != ord(";"):
            if byte == -1 or byte == ord("}"):
                raise self.fail(start, f"the value of {key!r} is not ended by ';'")
            self._token()
            last = self.at
        self.at += 1
        return first, last

    def _token(self) -> None:
        """Pass over one word, string, bracket or code block."""
        start = self.at
        if start == len(self.data):
            return
        if self.binary and (match := _BINARY_LIST.match(self.data, start)):
            self.at = self._behind_binary(match)
        elif self.data[start] in b'([{"#':
            self._mark(self.data[start : start + 1])
        elif self.data[start] in b")]}":
            raise self.fail(start, f"{chr(self.data[start])!r} closes nothing")
        else:
            self._word()
        if self.at == start:
            self.at += 1  # a single punctuation mark

    def _mark(self, mark: bytes) -> None:
        """Pass over what begins with a mark."""
        start = self.at
        if mark in b"([{":
            self._bracket()
            return
        pattern = {b'"': _STRING, b"#": _CODE, b"/": _COMMENT}.get(mark)
        match = pattern.match(self.data, start) if pattern is not None else None
        if match is not None:
            self.at = match.end()
        elif mark == b'"' or self.data[start : start + 2] in (b"#{", b"/*"):
            raise self.fail(start, f"{self.text(start, start + 20)!r} is never closed")
        elif mark == b"#" and (directive := _DIRECTIVE.match(self.data, start)):
            self.at = directive.end()
        else:
            self.at = start + 1

    def _bracket(self) -> None:
        """Pass over a bracket and all that it holds."""
        open_: list[int] = []
        while True:
            mark = _MARKS.search(self.data, self.at)
            if mark is None:
                raise self.fail(open_[0], f"{chr(self.data[open_[0]])!r} is never closed")
            self.at = mark.start()
            if mark[0] in b"([{":
                open_.append(self.at)
                self.at += 1
                self._pass_binary(open_[-1])
            elif mark[0] in b")]}":
                if _PAIRS[self.data[open_[-1]]] != self.data[self.at]:
                    raise self.fail(self.at, f"{chr(self.data[self.at])!r} closes {chr(self.data[open_[-1]])!r}")
                open_.pop()
                self.at += 1
                if not open_:
                    return
            else:
                self._mark(mark[0])

    def _pass_binary(self, bracket: int) -> None:
        before = self.data.rfind(b"List<", max(0, bracket - 40), bracket) if self.binary else -1
        match = _BINARY_LIST.match(self.data, before) if before >= 0 else None
        if match is not None and match.end() == bracket + 1:
            self.at = self._behind_binary(match) - 1

    def _behind_binary(self, opening: re.Match[bytes]) -> int:
        """Return the position behind a list that its count and type measure, or that is written as text."""
        label, scalar = self.numbers
        for size in (label,) if opening[1] == b"label" else (scalar, 12 - scalar):
            end = opening.end() + int(opening[2]) * _COMPONENTS.get(opening[1], 0) * size
            if self.data[end : end + 1] == b")":
                return end + 1
        text = self.data[opening.end() : self.data.find(b";", opening.end())]
        if not text.isascii() or b"\0" in text:
            raise self.fail(opening.start(), f"the length of the binary list {self.text(*opening.span())!r} is unknown")
        self.binary, self.at = False, opening.end() - 1
        self._bracket()
        self.binary = True
        return self.at

    def elements(self) -> list[Element]:
        """Read the elements up to the end of the data."""
        found: list[Element] = []
        while self.skip() != -1:
            start = self.at
            count = _COUNT.match(self.data, start)
            if count is not None:  # 3(a b c)
                self.at = count.end()
                self._bracket()
                if len(_Scanner(self.data[: self.at - 1], count.end() + 1).elements()) != int(count[0]):
                    self.at = count.end()
            elif self.data[start] == ord("#") and (directive := _DIRECTIVE.match(self.data, start)):
                self.at = directive.end()
                self.skip()
                self._token()
            else:
                self._token()
            last = self.at
            if found and self.data[start] == ord("{") and found[-1].items is None:
                named = found.pop()
                inner = _Scanner(self.data[: last - 1], start + 1).items(None)
                found.append(Element(named.first, last, self.text(named.first, named.last), inner))
            else:
                found.append(Element(start, last))
        return found
