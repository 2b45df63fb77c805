"""Texts from other programs, made harmless for a terminal and a log."""

from __future__ import annotations

import unicodedata

REPLACEMENT = "\ufffd"
_DANGEROUS = ("Cc", "Cf", "Cs", "Zl", "Zp")  # control, format (direction, invisible), surrogates, separators of lines


def plain_text(text: str, *, lines: bool = True) -> str:
    """Replace the characters that steer a terminal or change the direction of writing.

    Args:
        text: any text.
        lines: whether line feeds and tabs stay.

    Returns:
        The text with U+FFFD in the place of each such character.
    """
    if text.isascii() and text.isprintable():
        return text
    kept = "\n\t" if lines else ""
    return "".join(
        REPLACEMENT if unicodedata.category(character) in _DANGEROUS and character not in kept else character
        for character in text
    )
