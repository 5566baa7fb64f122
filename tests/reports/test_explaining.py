"""The text about a run says what its trials say, each difference with its noise."""

import json
import re
import shlex
from dataclasses import replace

import pytest

from autobackbone import open_run
from autobackbone.errors import ArgumentError
from autobackbone.metrics import paired_interval, score
from autobackbone.records import Limits
from autobackbone.reports.closely import rows_of
from autobackbone.reports.explaining import explanation
from autobackbone.reports.facts import page_facts

HEADINGS = [
    "What was asked",
    "Which networks were considered",
    "What was tried",
    "What freezing more or less did",
    "What the image size did",
    "What the learning rate did",
    "What was chosen, and why",
    "What to try with more time",
]


def top(trials):
    return max(trials, key=lambda trial: (trial.score, -trial.number))


def section(text, heading):
    """Without its line breaks."""
    after = text[text.index(heading) :].split("\n\n")[0].split("\n", 2)[2]
    return re.sub(r"\s+", " ", after)


def test_it_has_its_parts_in_order_and_no_name_moves_a_cursor(selection):
    text = selection.explain()
    assert re.findall(r"^(.+)\n-+$", text, flags=re.MULTILINE) == HEADINGS
    assert "\u202e" not in text
    assert max(map(len, text.splitlines())) <= 160  # a long word is not torn
    assert selection.target in section(text, HEADINGS[0])


def test_each_network_is_named_with_what_spoke_for_it_and_what_was_left_out(selection):
    told = section(selection.explain(), HEADINGS[1])
    for name, sizes in selection._seen.image_sizes.items():
        assert f"- {name} at {', '.join(str(height) for height, _ in sizes)} px: asked for" in told
    assert all(re.sub(r"\s+", " ", note)[:30] in told for note in selection.notes)


def test_why_pairs_were_not_tried_is_told_as_far_as_the_run_knows(selection):
    seen = selection._seen
    sizes = [["more", [[32, 32], [40, 40], [48, 48]]], *seen.facts["image_sizes"]]
    wider = replace(seen, facts={**seen.facts, "image_sizes": sizes})
    told = {n: section(explanation(replace(wider, n_untimely=n)), HEADINGS[1]) for n in (None, 0, 2, 3, 9)}
    assert all("3 of these 4 pairs were not tried" in one for one in told.values())
    assert "not tried for want of time." in told[3]
    assert "not tried for want of time." in told[9]
    assert "not tried: 2 for want of time, the others promised less, broke a limit" in told[2]
    assert "not tried: they promised less, broke a limit" in told[0]
    assert "want of time" not in told[None]
    assert seen.n_untimely == 0  # the search has noted it


def test_one_network_is_told_as_one(selection):
    seen = selection._seen
    finished = {one.n_unfrozen > 0: one for one in seen.trials if one.state == "finished"}
    told = section(explanation(replace(seen, trials=tuple(finished.values()))), HEADINGS[2])
    assert "1 frozen network: it stayed as it was" in told
    assert "1 network was fine-tuned, its last blocks trained" in told
    assert "each" not in told


def test_freezing_less_is_told_by_the_paired_difference_of_the_same_pictures(selection):
    told = section(selection.explain(), HEADINGS[3])
    found = [float(number) for number in re.findall(r"against the frozen one: ([-+][\d.e+-]+) points", told)]
    assert found
    ends = re.findall(r"\(95 %: ([-+][\d.e+-]+) to ([-+][\d.e+-]+)\)", told)
    assert all(float(low) <= middle <= float(high) for middle, (low, high) in zip(found, ends, strict=True))
    by_body = {}
    for trial in selection.trials:
        if trial.state == "finished":
            by_body.setdefault(str(trial.body), []).append(trial)
    both = {body: of for body, of in by_body.items() if len({one.n_unfrozen > 0 for one in of}) == 2}
    for body, of in both.items():
        assert f"{body}, with" in told
        frozen, tuned = (top([t for t in of if (t.n_unfrozen > 0) == is_tuned]) for is_tuned in (False, True))
        reader = selection._reader
        labels = reader.labels("validation")
        said = [reader.predictions(one, "validation") for one in (frozen, tuned)]
        if frozen.fold_score is None or tuned.fold_score is None:
            gain = 100 * (score(selection.metric, said[1], labels) - score(selection.metric, said[0], labels))
            low, high = paired_interval(selection.metric, *said, labels)
            assert f"{gain:+.2g} points (95 %: {-100 * high:+.2g} to {-100 * low:+.2g})" in told
    assert both


def test_what_fine_tuning_brings_is_not_told_from_a_head_that_has_seen_few(selection):
    seen = selection._seen
    few = [
        replace(one, extras={**one.extras, "fitted_share": 0.06}) if one.n_unfrozen == 0 else one for one in seen.trials
    ]
    told = section(explanation(replace(seen, trials=tuple(few))), HEADINGS[3])
    assert ", its head fitted on 6 % of the training pictures" in told
    assert "How much fine-tuning brings cannot be told from a head that has seen so few." in told
    assert "against the frozen one" not in told


def test_a_score_of_a_part_of_the_pictures_says_so_beside_it(selection):
    seen, extras = selection._seen, {"scored_share": 6 / 39, "n_validation": 39}
    trials = tuple(replace(one, extras={**one.extras, **extras}, fold_score=None) for one in seen.trials)
    told = explanation(replace(seen, trials=trials, choice=replace(seen.choice, trial=trials[0])))
    for heading in HEADINGS[2:4]:
        assert "% on 6 of 39 pictures" in section(told, heading) or "points on 6 of 39" in section(told, heading)
    page, _ = page_facts(replace(seen, trials=trials, front=trials[:1]), n_pictures=0, dataset=None)
    assert any("on 6 of 39 pictures" in cell for cell in page.front_rows[0].cells)
    assert "on 6 of 39 pictures" in dict(rows_of(trials[0], seen.metric))[f"{seen.metric.name} in validation"]


def test_rates_are_compared_by_thirds_only_where_there_are_enough(selection):
    seen = selection._seen
    tuned = next(one for one in seen.trials if one.lr is not None and one.state == "finished")
    frozen = [one for one in seen.trials if one.lr is None]
    assert "To compare rates it takes 6" in section(explanation(seen), HEADINGS[5])
    many = [replace(tuned, number=100 + i, lr=10.0 ** (i - 6), score=i / 10) for i in range(6)]
    told = section(explanation(replace(seen, trials=(*frozen, *many))), HEADINGS[5])
    assert "1.0e-06 to 1.0e-05: best 10.0 %, median 5.0 %, of 2" in told
    assert "1.0e-02 to 1.0e-01: best 50.0 %, median 45.0 %, of 2" in told
    none = section(explanation(replace(seen, trials=tuple(frozen))), HEADINGS[5])
    assert none == "Nothing can be said: no network has finished that was trained by gradient."


def test_image_sizes_are_compared_where_a_network_had_several(selection):
    seen = selection._seen
    assert "no network has finished frozen at two sizes" in section(explanation(seen), HEADINGS[4])
    frozen = next(one for one in seen.trials if one.n_unfrozen == 0 and one.state == "finished")
    larger = replace(frozen, image_size=(64, 64), latency_ms=99.0)
    told = section(explanation(replace(seen, trials=(frozen, larger))), HEADINGS[4])
    assert "- 32 px:" in told
    assert "- 64 px:" in told
    assert "99.0 ms" in told
    assert re.search(r"The largest against the smallest: \+0 points \(95 %: -[\d.]+ to \+[\d.]+\)", told)
    assert "which may be chance" in told


def test_what_failed_or_was_stopped_is_told_by_the_reasons_that_were_noted(selection):
    seen = selection._seen
    reasons = ("no memory", "no memory", "\x1b[2J")
    failed = [replace(seen.trials[0], state="failed", reason=reason) for reason in reasons]
    told = section(explanation(replace(seen, trials=(*seen.trials, *failed))), HEADINGS[2])
    assert "- 2 trials failed: no memory" in told
    assert "- 1 trial failed: \\x1b[2J" in told


def test_the_choice_is_that_of_the_run_and_a_limit_is_named(selection):
    seen = selection._seen
    told = section(selection.explain(), HEADINGS[6])
    assert re.sub(r"\s+", " ", selection.choice.reason) in told.replace("\\u202e", "\u202e")
    limits = {name: getattr(Limits(latency_ms=5.0), name) for name in Limits.__slots__}
    limited = explanation(replace(seen, facts={**seen.facts, "limits": limits}))
    assert "limits: latency_ms 5; " in section(limited, HEADINGS[0])
    assert "The best one within the limit of latency was chosen" in section(limited, HEADINGS[6])


@pytest.mark.parametrize(("lr", "end"), [(1e-6, "lowest"), (0.5, "highest")])
def test_what_lies_at_an_edge_of_what_was_tried_is_told_as_such(selection, lr, end):
    seen = selection._seen
    tuned = next(one for one in seen.trials if one.lr is not None and one.state == "finished")
    middle = [replace(tuned, number=90 + i, lr=rate) for i, rate in enumerate((1e-4, 1e-3))]
    best = replace(tuned, number=99, lr=lr)
    told = replace(seen, trials=(*middle, best), choice=replace(seen.choice, trial=best))
    assert f"Its learning rate is the {end} of 3 that were tried" in section(explanation(told), HEADINGS[7])


def edited(selection, **facts):
    file = selection.path / "run.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | facts))
    return open_run(selection.path)


def advised(selection):
    """The last line, unwrapped."""
    return section(selection.explain(), HEADINGS[7]).split("To go on: ")[1]


def test_the_way_to_go_on_names_the_run_and_what_it_does_not_hold(copied):
    call = f"open_run({str(copied.path)!r})"
    command = f"autobackbone more {shlex.quote(str(copied.path))} --budget 20min"
    assert advised(copied) == f'{call}.more("20min"), or: {command}'
    asked = copied._facts["asked"]
    given = edited(copied, dataset=None, asked=asked | {"times": {"in_memory": "one entry a picture"}})
    assert advised(given) == f'{call}.more("20min", dataset=..., times=...), with dataset= and times= as for the search'
    with pytest.raises(ArgumentError, match=r"holds no path to its pictures, .* came as an object: give dataset="):
        given.more("8s")
    own = edited(copied, dataset="photos", asked=asked, own_backbones={"own:net": {"factory": "net:make"}})
    assert advised(own).endswith('backbones=...).more("20min"), with backbones= as for the search')
