"""Text from elsewhere, such as a run folder or a file name, as a screen may show it."""

from __future__ import annotations

import re

# What a terminal obeys, what ends a line, and what turns the direction of writing; half a pair is no character at all.
_OBEYED = re.compile("[\x00-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


def harmless(text: str, *, keeps: str = "") -> str:
    r"""Write control characters as numbers: what is shown then moves no cursor, sets no colour and adds no line.

    Args:
        text: any.
        keeps: characters that stay as they are, such as the ends of lines that are meant.

    Example:
        >>> print(harmless("cat\x1b[2J\n"))
        cat\x1b[2J\n
    """
    return _OBEYED.sub(lambda found: found[0] if found[0] in keeps else _number(found[0]), text)


def _number(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")
