"""One file that tells a run and opens anywhere: it fetches nothing, and of the names in it none runs.

Jinja2 stands in this module alone. It escapes all that is put into the page, and `harmless` goes over it first. The
script takes its data from a block of JSON and writes them as text; a content security policy lets this one script run,
by its digest, and no address but `data:` be opened, should anything ever slip through.
"""

from __future__ import annotations

import base64
import hashlib
import io
import math
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from autobackbone.choosing import as_they_stand
from autobackbone.errors import ArgumentError
from autobackbone.reports.facts import page_facts
from autobackbone.reports.notebook import notebook_facts
from autobackbone.reports.seen import RunSeen
from autobackbone.runfolder import written_whole
from autobackbone.showing import harmless

_MOST_PICTURES = 200


def write_report(seen: RunSeen, path: str | Path, *, n_pictures: int, dataset: Any) -> Path:
    """Write the page of a run, whole or not at all.

    Args:
        seen: the run.
        path: of the file; what is there is replaced.
        n_pictures: of what it gets wrong, at most.
        dataset: where these pictures are; `None` for the path that the run has noted.

    Returns:
        Where it is.

    Raises:
        ArgumentError: `path` is no path, or cannot be written, or `n_pictures` is none that can be shown.
    """
    if not isinstance(path, (str, os.PathLike)):
        raise ArgumentError(f"report takes the path of a file to write, such as 'report.html', not {path!r}.")
    if isinstance(n_pictures, bool) or not isinstance(n_pictures, int) or not 0 <= n_pictures <= _MOST_PICTURES:
        raise ArgumentError(
            f"n_pictures is how many pictures are shown at most, from 0 to {_MOST_PICTURES}; {n_pictures!r} came."
        )
    file = Path(path).expanduser()
    text = report_html(seen, n_pictures=n_pictures, dataset=dataset)
    try:
        with written_whole(file) as temporary:
            temporary.write_text(text, encoding="utf-8")
    except (OSError, ValueError) as error:  # ValueError: a zero byte in the name
        raise ArgumentError(f"cannot write {str(path)!r}: {error}. Name a file in a folder that is there.") from error
    return file


def report_html(seen: RunSeen, *, n_pictures: int, dataset: Any) -> str:
    """The page as text."""
    page, data = page_facts(seen, n_pictures=n_pictures, dataset=dataset)
    style, script = _asset("report.css"), _asset("report.js")
    policy = (
        f"default-src 'none'; script-src '{_digest(script)}'; style-src '{_digest(style)}'; img-src data:; "
        "base-uri 'none'; form-action 'none'"
    )
    page_template = _environment().get_template("report.html.j2")
    given = {"page": page, "data": _shown(data), "style": style, "script": script, "policy": policy}
    return page_template.render(given)


def notebook_html(seen: RunSeen) -> str:
    """The choice, the front and its picture, without any script: for the output of a cell."""
    picture = _front_picture(seen) if seen.front else ""
    return _environment().get_template("notebook.html.j2").render(page=notebook_facts(seen), picture=picture)


def _front_picture(seen: RunSeen) -> str:
    from autobackbone.plots.front import draw_front, front_facts

    chosen = None if seen.chosen is None else seen.chosen.number
    written = io.BytesIO()
    figure = draw_front(front_facts(as_they_stand(seen.trials), seen.target, seen.metric, chosen))
    figure.savefig(written, format="png", dpi=80)
    return f"data:image/png;base64,{base64.b64encode(written.getvalue()).decode('ascii')}"


@cache
def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("autobackbone.reports"),
        autoescape=True,
        undefined=StrictUndefined,
        finalize=_harmless,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _harmless(value: Any) -> Any:
    """All that is put into a page goes through here; what is ours, or was made safe, is marked so."""
    return value if isinstance(value, Markup) or not isinstance(value, str) else harmless(value)


def _shown(value: Any) -> Any:
    """The same data, every text in it harmless, and no number that JSON does not know."""
    if isinstance(value, str):
        return harmless(value)
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, Mapping):
        return {name: _shown(one) for name, one in value.items()}
    return [_shown(one) for one in value] if isinstance(value, (list, tuple)) else value


@cache
def _asset(name: str) -> Markup:
    """A file of ours."""
    return Markup(Path(__file__).with_name("templates").joinpath(name).read_text(encoding="utf-8"))  # noqa: S704  ours


def _digest(text: str) -> str:
    return f"sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode('ascii')}"
