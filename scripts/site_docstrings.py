"""How docstrings of the package are shown on the site: an extension of griffe, which reads them without importing."""

from __future__ import annotations

import re
from textwrap import dedent, indent
from typing import Any

import griffe

# Our docstrings say `Example:`; griffe's style of Google knows `Examples:` and doctests in it.
_EXAMPLE = re.compile(r"^Example:\n((?:[ \t]+.*(?:\n|\Z)|\n)+)", re.MULTILINE)
_TREE = re.compile(r"^\S.*\n(?:[├│└].*(?:\n|\Z))+", re.MULTILINE)


class OurDocstrings(griffe.Extension):
    """Examples are shown as code, whether they are a doctest or a few plain lines; a tree keeps its lines."""

    def on_object(self, *, obj: griffe.Object, **_: Any) -> None:
        """Look at each docstring once."""
        if obj.docstring is not None:
            text = _EXAMPLE.sub(_as_examples, obj.docstring.value)
            obj.docstring.value = _TREE.sub(lambda found: f"```text\n{found[0].strip()}\n```\n", text)


def _as_examples(found: re.Match[str]) -> str:
    lines = dedent(found.group(1)).strip("\n")
    code = lines if lines.startswith(">>>") else f"```python\n{lines}\n```"
    return f"Examples:\n{indent(code, '    ')}\n"
