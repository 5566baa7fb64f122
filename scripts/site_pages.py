"""Pages of the site that lie beside `docs/`: a hook of mkdocs.

CHANGELOG, CONTRIBUTING and SECURITY lie in the root of the project, where people look for them, and link into `docs/`.
Here they become pages, and links between them and `docs/` lead to pages; the same files work on a disk.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
BESIDE = {"CHANGELOG.md": "changelog.md", "CONTRIBUTING.md": "contributing.md", "SECURITY.md": "security.md"}
# The site's first page stands for it.
README = {"README.md": "index.md"}


def on_files(files: Files, config: Any) -> Files:
    """Add what lies beside `docs/`, with its links as seen from `docs/`."""
    for source, page in BESIDE.items():
        text = (ROOT / source).read_text(encoding="utf-8").replace("](docs/", "](")
        for other, its_page in (BESIDE | README).items():
            text = re.sub(rf"\]\({re.escape(other)}(#[^)]*)?\)", rf"]({its_page}\1)", text)
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Lead links out of `docs/` to the pages that stand for these files."""
    for source, page in (BESIDE | README).items():
        markdown = re.sub(rf"\]\(((?:\.\./)*)\.\./{re.escape(source)}(#[^)]*)?\)", rf"](\1{page}\2)", markdown)
    return markdown
