import io
from typing import get_args

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from autobackbone.backbones.catalogue import catalogue
from autobackbone.errors import BackboneError
from autobackbone.plots.catalogue import CatalogueAxis, catalogue_facts, plot_catalogue

AXES = get_args(CatalogueAxis)


def legend_of(axes: Axes) -> list[str]:
    legend = axes.get_legend()
    assert legend is not None
    return [text.get_text() for text in legend.get_texts()]


@pytest.mark.parametrize("x", AXES)
def test_the_facts_are_the_catalogues(x):
    facts = catalogue_facts(x)
    table = catalogue().set_index("name").loc[list(facts.names)]
    np.testing.assert_array_equal(facts.x, table[x].to_numpy(float))
    np.testing.assert_array_equal(facts.top1, table["top1"])
    assert np.isfinite(facts.x).all()
    assert (facts.x > 0).all()


@pytest.mark.parametrize("x", AXES)
def test_the_front_is_its_definition(x):
    facts = catalogue_facts(x)
    costs = -facts.x if x.endswith("_per_s") else facts.x
    as_good = (costs[:, None] <= costs) & (facts.top1[:, None] >= facts.top1)
    better = (costs[:, None] < costs) | (facts.top1[:, None] > facts.top1)
    np.testing.assert_array_equal(facts.is_front, ~(as_good & better).any(axis=0))
    assert 1 < facts.is_front.sum() < len(facts.names) / 10


def test_bigger_is_not_always_better():
    facts = catalogue_facts("n_params")
    n_params = dict(zip(facts.names, facts.x, strict=True))
    top1 = dict(zip(facts.names, facts.top1, strict=True))
    small, big = "efficientnet_b0.ra_in1k", "inception_v3.tf_adv_in1k"
    assert n_params[small] < n_params[big] / 4
    assert top1[small] > top1[big]


@pytest.mark.parametrize("x", AXES)
def test_the_figure_draws_and_labels_the_newcomers_three(x):
    figure = plot_catalogue(x)
    figure.savefig(io.BytesIO(), format="png")
    (axes,) = figure.axes
    assert axes.get_xscale() == "log"
    named = legend_of(axes)
    assert named[1:] == [
        "front",
        "resnet50.a1_in1k: 80.4 %",
        "efficientnet_b0.ra_in1k: 77.7 %",
        "inception_v3.tv_in1k: 77.5 %",
    ]


def test_it_draws_where_it_is_told():
    own = Figure()
    axes = own.add_subplot()
    assert plot_catalogue(ax=axes, highlight=()) is own
    assert len(own.axes) == 1
    assert len(legend_of(axes)) == 2


def test_an_unknown_axis_names_the_known_ones():
    with pytest.raises(BackboneError, match=r"x must be one of n_params, gmacs.*not 'size'"):
        plot_catalogue("size")  # type: ignore[arg-type]
