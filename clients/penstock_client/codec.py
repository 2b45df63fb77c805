"""Reading and writing the flat binary payloads of the wire format."""

from __future__ import annotations

import struct

from penstock_client.errors import WireError

MAX_STRING = 1 << 20

MAX_ITEMS = 1 << 16
MAX_FOREIGN_TEXT = 1 << 16  # bytes


class Writer:
    """Builds a payload of little-endian values. The `put` methods return the writer, so that calls can be chained."""

    def __init__(self) -> None:
        self._parts: list[bytes] = []

    def put(self, layout: str, *values: float) -> Writer:
        """Append numbers in a layout of the `struct` module, without a byte-order character."""
        self._parts.append(struct.pack("<" + layout, *values))
        return self

    def raw(self, data: bytes) -> Writer:
        """Append bytes as they are."""
        self._parts.append(data)
        return self

    def string(self, text: str) -> Writer:
        """Append a string as UTF-8 after its length in bytes, a u32."""
        data = text.encode()
        return self.put("I", len(data)).raw(data)

    def foreign_text(self, text: str) -> Writer:
        """Append a text that comes from elsewhere: a solver's message, a host name.

        Unpaired surrogates, which file names that are not UTF-8 contain, are replaced; a long text is cut.
        """
        data = text.encode(errors="replace")[:MAX_FOREIGN_TEXT]
        return self.string(data.decode(errors="ignore"))

    def bytes(self) -> bytes:
        """Return the payload."""
        return b"".join(self._parts)


class Reader:
    """Reads a payload of little-endian values from its beginning.

    Every method raises WireError if the payload ends too early or holds an invalid value.

    Args:
        frame: the payload.
    """

    def __init__(self, frame: bytes | memoryview) -> None:
        self._frame = bytes(frame)
        self._at = 0

    def raw(self, size: int) -> bytes:
        """Read `size` bytes."""
        end = self._at + size
        if end > len(self._frame):
            raise WireError(f"payload of {len(self._frame)} bytes ends before byte {end}")
        data = self._frame[self._at : end]
        self._at = end
        return data

    def integers(self, layout: str) -> tuple[int, ...]:
        """Read integers in a layout of the `struct` module."""
        layout = "<" + layout
        return struct.unpack(layout, self.raw(struct.calcsize(layout)))

    def integer(self, layout: str) -> int:
        """Read one integer in a layout of the `struct` module."""
        return self.integers(layout)[0]

    def count(self) -> int:
        """Read a number of items, a u32 of at most MAX_ITEMS."""
        number = self.integer("I")
        if number > MAX_ITEMS:
            raise WireError(f"payload announces {number} items, at most {MAX_ITEMS} are allowed")
        return number

    def doubles(self, number: int) -> tuple[float, ...]:
        """Read `number` float64 values."""
        return struct.unpack(f"<{number}d", self.raw(8 * number))

    def string(self) -> str:
        """Read a UTF-8 string of at most MAX_STRING bytes."""
        size = self.integer("I")
        if size > MAX_STRING:
            raise WireError(f"string of {size} bytes, at most {MAX_STRING} are allowed")
        try:
            return self.raw(size).decode()
        except UnicodeDecodeError as error:
            raise WireError("string that is not UTF-8") from error

    def end(self) -> None:
        """Check that the whole payload has been read."""
        if self._at != len(self._frame):
            raise WireError(f"payload has {len(self._frame) - self._at} bytes too many")
