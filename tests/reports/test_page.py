"""What the page of a run says, and that no name in it becomes more than text. A browser opens it in test_browser.py."""

import base64
import hashlib
import json
import re
from dataclasses import replace
from html.parser import HTMLParser

import numpy as np
import pytest
from tests.conftest import command
from tests.reports.conftest import BREAKING, CLASSES

from autobackbone import open_run
from autobackbone.choosing import on_one_scale
from autobackbone.errors import ArgumentError
from autobackbone.reports import page as page_module
from autobackbone.reports.closely import close_ups
from autobackbone.reports.facts import page_facts
from autobackbone.reports.mistakes import mistakes_of
from autobackbone.reports.seen import Said, said_of


class Elements(HTMLParser):
    """What a browser would make of a page: elements with their attributes, and the texts of scripts and styles."""

    def __init__(self, text):
        super().__init__()
        self.found, self.texts, self._open = [], [], None
        self.feed(text)

    def handle_starttag(self, tag, attributes):
        self.found.append((tag, dict(attributes)))
        self._open = tag if tag in ("script", "style") else None

    def handle_data(self, data):
        if self._open:
            self.texts.append((self._open, data))
            self._open = None

    def of(self, tag):
        return [attributes for name, attributes in self.found if name == tag]


@pytest.fixture(scope="module")
def text(report_file):
    return report_file.read_text(encoding="utf-8")


@pytest.fixture(scope="module")
def elements(text):
    return Elements(text)


def data_of(text):
    return json.loads(re.search(r'<script id="report-data" type="application/json">(.*?)</script>', text, re.DOTALL)[1])


def test_the_target_is_in_the_first_line_and_no_name_becomes_an_element(text, elements, hostile):
    body = text[text.index("<body>") :]
    assert re.sub(r"<[^>]*>", "", body).strip().startswith(f"target: {open_run(hostile).target}")
    assert len(elements.of("script")) == 2
    assert not elements.of("svg")
    assert all(image["src"].startswith("data:image/jpeg;base64,") for image in elements.of("img"))
    assert not any(name.startswith("on") for _, attributes in elements.found for name in attributes)
    assert "\u202e" not in text
    assert "{{ 7 * 7 }}" in body  # and not 49


def test_it_holds_all_that_it_shows_and_its_policy_lets_its_own_script_alone_run(elements):
    addresses = [v for _, attributes in elements.found for k, v in attributes.items() if k in ("src", "href", "action")]
    assert all(address.startswith("data:image/") for address in addresses)
    policy = next(one["content"] for one in elements.of("meta") if "http-equiv" in one)
    assert policy.startswith("default-src 'none'")
    for kind, content in elements.texts:
        digest = base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()
        if not content.startswith("{"):
            assert f"{kind}-src 'sha256-{digest}'" in policy


def test_the_data_of_its_script_are_those_of_the_trials(text, selection):
    data = data_of(text)
    assert data["chosen"] == selection.best.number
    assert {trial["number"] for trial in data["trials"] if trial["front"]} == {one.number for one in selection.front}
    assert len(data["trials"]) == sum(trial.state == "finished" for trial in selection.trials)
    assert data["classes"] == [CLASSES[i].replace("\u202e", "\\u202e") for i in np.argsort(CLASSES)]
    shown = next(trial for trial in data["trials"] if trial["number"] == data["chosen"])
    assert shown["close"][-1]["part"] == "test"
    assert all(np.sum(told["matrix"]) == told["n"] for told in shown["close"])
    tuned = [trial for trial in data["trials"] if not trial["frozen"]]
    assert tuned
    assert all(len(trial["curve"]["validation"]) == len(trial["curve"]["train"]) > 0 for trial in tuned)
    first = min(data["trials"], key=lambda one: one["rank"])
    # What has no score by folds is drawn where its validation score is, and ranks by what that does not flatter.
    judged = {one.number: one.score for one in on_one_scale([t for t in selection.trials if t.state == "finished"])}
    assert judged[first["number"]] == max(judged.values())


def test_of_many_classes_the_pairs_that_are_taken_for_each_other_most_are_told(selection, monkeypatch):
    generator = np.random.default_rng(0)
    labels = np.repeat(np.arange(40), 20)
    likeliest = np.where(generator.random(800) < 0.1, (labels + 1) % 40, labels)
    likeliest[:20] = 7  # of class 0, which is taken for class 7
    said = Said(part="validation", names=np.arange(800).astype(str), predictions=np.eye(40)[likeliest], labels=labels)
    monkeypatch.setattr("autobackbone.reports.closely.said_of", lambda *_: [said])
    monkeypatch.setattr(type(selection._seen), "classes", tuple(map(str, range(40))))
    (told,) = close_ups(selection._seen, selection.trials[:1])[selection.trials[0].number]
    assert told["pairs"][0] == ["0", "7", 20, 20]
    counts = [row[2] for row in told["pairs"]]
    assert counts == sorted(counts, reverse=True)
    assert all(counts)


def test_a_page_stays_small_and_says_what_it_leaves_out(selection, tmp_path, monkeypatch):
    monkeypatch.setattr("autobackbone.reports.closely._MOST_NUMBERS", 20)
    data = data_of(selection.report(tmp_path / "report.html").read_text(encoding="utf-8"))
    told = [trial["number"] for trial in data["trials"] if trial["close"] is not None]
    assert told == [selection.best.number]


def test_costs_of_each_stage_are_told(selection):
    page, _ = page_facts(selection._seen, n_pictures=0, dataset=None)
    stages = [row[0].split(":")[0] for row in page.cost_rows]
    assert stages[:3] == ["prepare", "read", "screen"]
    assert {"search", "confirm"} <= set(stages)
    seconds = selection._seen.stage_seconds
    assert all(value >= 0 for value in seconds.values())
    assert sum(seconds.values()) >= max(trial.finished_at_s for trial in selection.trials)


def test_the_surest_mistakes_come_first_with_their_pictures(selection, dataset):
    seen = selection._seen
    said = said_of(seen, selection.best)
    found = mistakes_of(seen, said, 5, None)
    assert found.n_wrong == sum(int((one.predictions.argmax(axis=1) != one.labels).sum()) for one in said)
    assert found.n_wrong > 5
    weights = [mistake.weight for mistake in found.shown]
    assert len(weights) == 5
    assert weights == sorted(weights, reverse=True)
    assert all(
        mistake.picture.startswith("data:image/jpeg") and mistake.name.startswith(BREAKING) for mistake in found.shown
    )
    assert max(mistake.weight for mistake in mistakes_of(seen, said, 200, None).shown) == weights[0]


def test_where_the_pictures_are_not_at_hand_it_says_so(copied, tmp_path, dataset):
    facts = json.loads((copied.path / "run.json").read_text())
    (copied.path / "run.json").write_text(json.dumps(facts | {"dataset": str(tmp_path / "moved" / "labels.csv")}))
    moved = open_run(copied.path)
    page, _ = page_facts(moved._seen, n_pictures=3, dataset=None)
    assert page.mistakes.note.startswith("The pictures are not at hand")
    assert all(mistake.picture is None for mistake in page.mistakes.shown)
    page, _ = page_facts(moved._seen, n_pictures=3, dataset=dataset)
    assert all(mistake.picture for mistake in page.mistakes.shown)
    (copied.path / "run.json").write_text(json.dumps(facts | {"dataset": None}))
    page, _ = page_facts(open_run(copied.path)._seen, n_pictures=3, dataset=None)
    assert "the run holds no path to them" in page.mistakes.note


def test_of_a_run_without_a_finished_trial_it_says_what_there_is(copied, tmp_path):
    copied.trials = [replace(one, state="failed", score=None, reason=BREAKING) for one in copied.trials]
    text = copied.report(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Nothing is chosen." in text
    assert "no frozen network is screened yet" in text
    assert BREAKING not in text
    assert data_of(text)["trials"] == []
    assert "Nothing can be said" in copied.explain()
    assert "no trial has finished" in copied._repr_html_()


def test_a_run_that_was_cut_off_before_its_first_trial_is_told_too(copied, tmp_path):
    copied.trials = []
    assert "0 trials, 0 finished" in copied.report(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Nothing yet." in copied.explain()


def test_what_is_not_confirmed_or_not_kept_leaves_the_rest_as_it_is(copied, tmp_path):
    for file in copied.path.glob("trials/*/*.npy"):
        file.unlink()
    frozen = [replace(one, test_score=None) for one in copied.trials if one.n_unfrozen == 0 and one.state == "finished"]
    copied.trials = frozen
    text = copied.report(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "is not there" in text  # what judges the choice
    assert all(trial["close"] == [] for trial in data_of(text)["trials"])


def test_a_run_that_has_noted_neither_stages_nor_reasons_is_told_from_its_trials(copied):
    seen = replace(copied._seen, stage_seconds={}, facts={k: v for k, v in copied._facts.items() if k != "whys"})
    page, _ = page_facts(seen, n_pictures=0, dataset=None)
    assert "has not noted what its stages took" in page.cost_note
    assert [row[0] for row in page.cost_rows] == ["screen: frozen networks", "search: fine-tuned"]
    assert seen.whys == {}


def test_it_is_written_whole_or_not_at_all(selection, tmp_path, monkeypatch):
    with pytest.raises(ArgumentError, match="Name a file in a folder that is there"):
        selection.report(tmp_path / "not there" / "report.html")
    with pytest.raises(ArgumentError, match="takes the path of a file to write"):
        selection.report(7)
    with pytest.raises(ArgumentError, match="from 0 to 200; 201 came"):
        selection.report(tmp_path / "report.html", n_pictures=201)
    monkeypatch.setattr(page_module, "report_html", lambda *_, **__: "half a page \ud800")
    (tmp_path / "report.html").write_text("the one before")
    with pytest.raises(ArgumentError, match="surrogates not allowed"):
        selection.report(tmp_path / "report.html")
    assert [file.read_text() for file in tmp_path.iterdir()] == ["the one before"]


def test_a_notebook_shows_choice_front_and_picture_without_any_script(selection):
    shown = Elements(selection._repr_html_())
    assert {tag for tag, _ in shown.found} <= {
        "div",
        "p",
        "b",
        "br",
        "table",
        "thead",
        "tbody",
        "tr",
        "th",
        "td",
        "img",
    }
    assert [image["src"][:22] for image in shown.of("img")] == ["data:image/png;base64,"]
    assert len(shown.of("tr")) == 1 + len(selection.front)


def test_a_notebook_falls_back_to_plain_text_where_a_run_is_damaged(copied):
    (copied.path / "pictures.csv").unlink()
    (copied.path / "study.db").write_bytes(b"none")
    assert open_run(copied.path)._repr_html_() is None


def test_the_command_line_writes_it_and_explains(hostile, tmp_path):
    done = command("report", hostile, "--out", tmp_path / "page.html", "--pictures", "0")
    assert (done.code, done.out.strip()) == (0, f"written: {tmp_path / 'page.html'}")
    assert not Elements((tmp_path / "page.html").read_text(encoding="utf-8")).of("img")
    told = command("explain", hostile)
    assert told.code == 0
    assert told.out.startswith("What was asked")


def test_a_moment_and_a_probability_are_told_as_they_are_read(copied):
    page, _ = page_facts(copied._seen, n_pictures=0, dataset=None)
    assert re.search(r"begun \d{4}-\d\d-\d\d \d\d:\d\d UTC;", page.state)
    assert page.suspect_rows
    assert all(re.fullmatch(r"\d+\.\d %", cell) for row in page.suspect_rows for cell in row[4:])
    assert [row[3] in map(str, copied.classes) for row in page.suspect_rows] == [True] * len(page.suspect_rows)
    odd = replace(copied._seen, facts={**copied._facts, "begun_at": "yesterday"})
    assert "begun yesterday;" in page_facts(odd, n_pictures=0, dataset=None)[0].state


def test_the_noise_of_latencies_is_among_the_data_of_the_script(selection):
    seen = selection._seen
    noisy = tuple(replace(one, latency_noise_ms=0.1 * (one.latency_ms or 0.0)) for one in seen.trials)
    _, data = page_facts(replace(seen, trials=noisy), n_pictures=0, dataset=None)
    for trial in data["trials"]:
        wanted = [0.9 * trial["latency_ms"], 1.1 * trial["latency_ms"]] if trial["front"] else None
        assert trial["reach_ms"] == (wanted and pytest.approx(wanted))
    assert "level bars: latency ± noise" in data["axis"]["legend"]
