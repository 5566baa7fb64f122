"""The page of a run in a real browser."""

import pytest
from tests.reports.conftest import BREAKING

PANEL = "return document.getElementById('panel').textContent"


@pytest.fixture
def opened(chromium, report_file):
    chromium.emulate(width=1200)
    chromium.open(report_file)
    return chromium


def numbers(browser, of):
    return browser.run(f"return [...document.querySelectorAll('{of}')].map((one) => Number(one.dataset.trial))")


def test_the_names_of_these_tests_do_run_where_nobody_escapes_them(chromium, tmp_path):
    (tmp_path / "page.html").write_text(f"<script>{BREAKING}</script>", encoding="utf-8")
    chromium.open(tmp_path / "page.html")
    assert chromium.run("return new Promise((then) => setTimeout(() => then(window.ran), 300))") == 1
    assert any(entry["level"] == "SEVERE" for entry in chromium.logged("browser"))
    assert any(address.endswith("/x") for address in chromium.asked_for())


def test_no_name_runs_nothing_is_fetched_and_nothing_goes_wrong(opened):
    points = numbers(opened, "svg .point")
    for number in points:  # each panel holds names of its own
        opened.run(
            "document.querySelector(`svg .point[data-trial='${arguments[0]}']`).dispatchEvent(new Event('click'))",
            number,
        )
    assert opened.run("return new Promise((then) => setTimeout(() => then(window.ran), 300))") is None
    assert opened.run("return document.scripts.length") == 2
    assert opened.run("return [...document.images].every((one) => one.naturalWidth > 0 && one.src.startsWith('data:'))")
    assert (
        opened.run(
            "return [...document.querySelectorAll('*')].flatMap((one) => one.getAttributeNames())"
            ".filter((name) => name.startsWith('on'))"
        )
        == []
    )
    assert opened.logged("browser") == []
    assert [address for address in opened.asked_for() if not address.startswith(("data:", "file:"))] == []


def test_it_asks_for_no_file_beside_itself(opened, report_file):
    asked = {address for address in opened.asked_for() if not address.startswith("data:")}
    assert asked == {report_file.absolute().as_uri()}


def test_class_names_are_shown_letter_by_letter(opened):
    heads = opened.run("return [...document.querySelectorAll('.matrix tbody th')].map((one) => one.textContent)")
    assert f"{BREAKING}cat" in heads


def test_picking_a_point_or_a_row_changes_the_panel(opened, selection):
    assert f"Trial {selection.best.number}" in opened.run(PANEL)
    other = next(number for number in numbers(opened, "svg .point") if number != selection.best.number)
    point = opened.driver.find_element("css selector", f"svg .point[data-trial='{other}'] .area")
    opened.driver.execute_script("arguments[0].scrollIntoView({block: 'center'})", point)
    opened.run("arguments[0].parentNode.focus()", point)
    assert f"trial {other}" in opened.run("return document.querySelector('.tip').textContent")
    assert not opened.run("return document.querySelector('.tip').hidden")
    opened.driver.switch_to.active_element.send_keys("\ue007")  # Enter
    assert f"Trial {other}" in opened.run(PANEL)
    assert set(numbers(opened, ".picked")) == {other}
    row = opened.driver.find_element("css selector", f"[data-pick='{selection.front[0].number}']")
    opened.run("arguments[0].scrollIntoView({block: 'center'})", row)
    row.click()
    assert f"Trial {selection.front[0].number}" in opened.run(PANEL)


def test_a_mouse_picks_what_it_hovers_over(opened):
    from selenium.webdriver import ActionChains

    # The topmost point of those that lie on each other is the one that a mouse can reach.
    point = opened.driver.find_elements("css selector", "svg .point")[-1]
    opened.run("arguments[0].scrollIntoView({block: 'center'})", point)
    ActionChains(opened.driver).move_to_element(point).perform()
    number = point.get_attribute("data-trial")
    assert f"trial {number}" in opened.run("return document.querySelector('.tip').textContent")
    ActionChains(opened.driver).click().perform()
    assert f"Trial {number}" in opened.run(PANEL)


def test_a_limit_greys_out_what_breaks_it_and_names_the_best_that_keeps_it(opened, selection):
    finished = [trial for trial in selection.trials if trial.state == "finished"]
    sizes = sorted({trial.n_params for trial in finished})
    limit = (sizes[0] + sizes[-1]) / 2e6
    assert sizes[0] < limit * 1e6 < sizes[-1]
    field = opened.driver.find_element("name", "n_params")
    field.send_keys(f"{limit:.6f}")
    broken = {trial.number for trial in finished if trial.n_params > limit * 1e6}
    assert set(numbers(opened, "svg .point.out")) == broken
    assert set(numbers(opened, "tr.out")) == broken
    told = opened.run("return document.getElementById('within').textContent")
    assert f"{len(finished) - len(broken)} of {len(finished)} trials keep these limits" in told
    opened.driver.find_element("name", "latency_ms").send_keys("0.000001")
    assert "none of" in opened.run("return document.getElementById('within').textContent")
    opened.driver.find_element("css selector", "#limits button").click()
    assert (
        opened.run("return new Promise((then) => setTimeout(() => then(document.querySelectorAll('.out').length)))")
        == 0
    )


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_it_fits_a_telephone_in_light_and_in_dark(chromium, report_file, scheme):
    chromium.emulate(width=390, scheme=scheme)
    chromium.open(report_file)
    assert chromium.run("return document.documentElement.scrollWidth") <= 390
    ground, ink = chromium.run(
        "const style = getComputedStyle(document.body);"
        "return [style.backgroundColor, style.color].map((text) => text.match(/\\d+/g).map(Number)[0])"
    )
    assert abs(ground - ink) > 150
    assert (ground > ink) == (scheme == "light")
    assert chromium.logged("browser") == []


def test_what_is_taken_for_what_names_its_pictures_and_latencies_have_their_noise(opened, selection):
    heads = opened.run("return [...document.querySelectorAll('#closely h3')].map((one) => one.textContent)")
    taken = [head for head in heads if head.startswith("What is taken for what")]
    assert len(taken) == 2
    assert "What is taken for what (test)" in taken
    assert taken[0] in ("What is taken for what (validation)", "What is taken for what (by folds)")
    drawn = opened.run("return document.querySelectorAll('svg path.noise').length")
    assert drawn == sum(bool(trial.latency_noise_ms) for trial in selection.front)
