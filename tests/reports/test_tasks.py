"""Numbers, and several labels a picture, instead of classes."""

import json
import re

import numpy as np
import pytest
from tests.conftest import TINY, make_pictures

from autobackbone import Budget, select_backbone
from autobackbone.reports.mistakes import mistakes_of
from autobackbone.reports.seen import said_of

X, Y = make_pictures(n_per_class=16)
LABELS = {
    "multilabel": np.stack([Y == 0, Y > 0], axis=1).astype(int),
    "regression": np.stack([Y + 0.5, 3.0 - Y], axis=1),
}
TOLD = {"multilabel": ("labels", "Label by label"), "regression": ("numbers", "Predicted against true")}


@pytest.fixture(scope="module", params=["multilabel", "regression"])
def selection(request, random_weights, tmp_path_factory):
    folder = tmp_path_factory.mktemp(request.param)
    return select_backbone(
        (X, LABELS[request.param]),
        Budget(n_trials=0),
        task=request.param,
        backbones=TINY,
        image_sizes=32,
        weights=random_weights(TINY),
        cache_dir=folder / "cache",
        run_dir=folder / "run",
        space={"n_unfrozen": 0, "n_blocks_kept": None},
        progress=False,
    )


def test_the_page_tells_what_such_predictions_come_to(selection, tmp_path, chromium):
    file = selection.report(tmp_path / "report.html")
    text = file.read_text(encoding="utf-8")
    data = json.loads(re.search(r'type="application/json">(.*?)</script>', text, re.DOTALL)[1])
    close = data["trials"][0]["close"]
    assert close
    kind, title = TOLD[selection.task]
    assert all(len(told[kind]) == 2 for told in close)
    chromium.open(file)
    assert title in chromium.run("return document.getElementById('closely').textContent")
    assert chromium.logged("browser") == []
    assert selection.explain()
    assert "<table>" in selection._repr_html_()


def test_the_worst_pictures_come_first(selection):
    said = said_of(selection._seen, selection.best)
    found = mistakes_of(selection._seen, said, 200, (X, LABELS[selection.task])).shown
    weights = [mistake.weight for mistake in found]
    assert weights == sorted(weights, reverse=True)
    is_regression = selection.task == "regression"
    spreads = [one.labels.std(axis=0) if is_regression else 1 for one in said]
    off = np.concatenate([np.abs(one.predictions - one.labels) / of for one, of in zip(said, spreads, strict=True)])
    least = 1 if is_regression else 0.5
    assert len(found) == (off.max(axis=1) > least).sum()
    assert all(mistake.picture for mistake in found)
