"""Every Python example of README and `docs/` is executed, on small pictures with a small network.

What a page says is what runs; only the time, the networks and the number of epochs are smaller. A comment before a
block says otherwise: `<!-- example: slow -->` runs with the slow tests, and else only plans what it would search;
`<!-- example: elsewhere, why -->` needs what is not here, and is compiled and held against signatures.
"""

import re
import sys
from pathlib import Path

import pytest
from tests.conftest import TINY
from tests.pages import Reader, Small, examples_of, write_world

import autobackbone
from autobackbone.backbones import facts
from autobackbone.backbones.catalogue import catalogue

ROOT = Path(__file__).parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {page: page.read_text(encoding="utf-8") for page in PAGES}
WITH_EXAMPLES = [page for page in PAGES if examples_of(page)]
WITH_SLOW_ONES = [page for page in WITH_EXAMPLES if "<!-- example: slow" in TEXTS[page]]
PUBLISHED = {
    "px": lambda row: str(row["input_size"][0]),
    "million parameters": lambda row: f"{row['n_params'] / 1e6:.2f}",
    "GMACs": lambda row: f"{row['gmacs']:.2f}",
    "top-1, %": lambda row: f"{row['top1']:.3f}",
    "pictures/s": lambda row: f"{row['cpu_images_per_s']:.2f}",
}


def named(page):
    return page.stem


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    folder = tmp_path_factory.mktemp("world")
    write_world(folder)
    return folder


@pytest.fixture(scope="module")
def small(world, random_weights, tmp_path_factory):
    smaller = Small(
        weights=random_weights(TINY), cache=tmp_path_factory.mktemp("cache"), first=world / "runs" / "first"
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(world)
        smaller.make_first()
    return smaller


@pytest.fixture
def reader(world, small, monkeypatch):
    monkeypatch.chdir(world)
    monkeypatch.syspath_prepend(str(world))
    yield Reader(small=small, patch=monkeypatch)
    for name in [name for name in sys.modules if name.split(".")[0] == "mypackage"]:
        del sys.modules[name]


# Lightning uses what torch deprecates.
@pytest.mark.filterwarnings(
    "ignore:.*LeafSpec", "ignore:The number of training batches", "ignore:Found .* in eval mode"
)
@pytest.mark.parametrize("page", WITH_EXAMPLES, ids=named)
def test_every_example_runs(page, reader):
    for example in examples_of(page, reader.evaluate(with_slow=False)):
        example.evaluate()


@pytest.mark.slow
@pytest.mark.timeout(3600)  # thirty searches, some with worker processes
@pytest.mark.parametrize("page", WITH_SLOW_ONES, ids=named)
def test_every_slow_example_runs(page, reader):
    for example in examples_of(page, reader.evaluate(with_slow=True)):
        example.evaluate()


@pytest.mark.parametrize("page", PAGES, ids=named)
def test_every_block_of_python_is_found(page):
    assert len(examples_of(page)) == len(re.findall(r"^\s*(?:```|~~~)\s*py", TEXTS[page], re.MULTILINE))
    outside = re.sub(r"```.*?```", "", TEXTS[page], flags=re.DOTALL)
    assert not re.findall(r"^    .*(?:select_backbone\(|import )", outside, re.MULTILINE)


def rows_of(text):
    """The rows of a page's tables that begin with the full name of a network, by the heads of their columns."""
    heads = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        heads = [] if not line.startswith("|") else heads or cells
        if name := re.fullmatch(r"`(\w+\.\w+)`", cells[0]):
            yield name[1], dict(zip(heads, cells, strict=True))


def test_the_page_on_networks_says_what_is_published():
    text = TEXTS[ROOT / "docs" / "choosing-a-network.md"]
    table, rows = catalogue().set_index("name"), list(rows_of(text))
    assert len(rows) > 20
    for name, said in rows:
        published = {head: of(table.loc[name]) for head, of in PUBLISHED.items() if head in said}
        assert {head: said[head] for head in published} == published, name
    at_288 = facts.accuracy().loc[("resnet50.a1_in1k", 288), "top1"]
    assert f"{at_288:.3f} at 288 px" in text


def test_the_reference_holds_all_that_is_public():
    shown = set(re.findall(r"^::: autobackbone\.(\w+)", TEXTS[ROOT / "docs" / "api.md"], re.MULTILINE))
    # The root of the errors is shown among them.
    public = {name for name in autobackbone.__all__ if not name.startswith("_")} - {"AutobackboneError"}
    assert public | {"metrics", "errors"} <= shown
