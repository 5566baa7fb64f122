"""What the pages tell people to write is held against the code."""

import ast
import inspect
import re
from pathlib import Path

import pytest
import typer.main

import autobackbone
from autobackbone.cli import app

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")), ROOT / "CONTRIBUTING.md", ROOT / "SECURITY.md"]
README = (ROOT / "README.md").read_text(encoding="utf-8")
CALLS = [
    call
    for block in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL)
    for call in ast.walk(ast.parse(block))
    if isinstance(call, ast.Call)
]
NAMED = {name: getattr(autobackbone, name) for name in autobackbone.__all__ if not name.startswith("_")}
COMMANDS = typer.main.get_command(app)


@pytest.mark.parametrize("call", [call for call in CALLS if ast.unparse(call.func) in NAMED], ids=ast.unparse)
def test_every_call_in_the_readme_fits_its_function(call):
    signature = inspect.signature(NAMED[ast.unparse(call.func)])
    signature.bind(*call.args, **{keyword.arg: keyword.value for keyword in call.keywords})


def test_what_is_held_by_name_exists():
    used = set(re.findall(r"`?result\.(\w+)", README))
    assert {"best", "front", "choice", "model", "predict"} <= used
    assert used <= set(dir(autobackbone.Selection))


LINES = [line for page in PAGES for line in re.findall(r"^autobackbone (.+)$", page.read_text("utf-8"), re.MULTILINE)]


@pytest.mark.parametrize("line", LINES)
def test_every_command_and_option_in_the_pages_exists(line):
    name, *words = line.split("#")[0].split()
    options = {option for parameter in COMMANDS.commands[name].params for option in parameter.opts}
    assert {word for word in words if word.startswith("--")} <= options


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\((?!https?:)([^)#]+)", page.read_text(encoding="utf-8")):
        assert (page.parent / link).exists(), f"{page.name} links to {link}"


def test_every_module_has_its_row_in_the_list_of_rooms():
    table = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    package = ROOT / "src" / "autobackbone"
    own = {path.stem for path in package.iterdir() if path.suffix == ".py" or path.is_dir()}
    rooms = {name for name in own if not name.startswith("_")}
    listed = {name.rstrip("/") for row in re.findall(r"^\| (`.+?) \|", table, re.MULTILINE) for name in row.split("`")}
    assert rooms - listed == set()
