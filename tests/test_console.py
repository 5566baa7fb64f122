import io
import os
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from autobackbone.console import Console

# Names that rich would otherwise read as colour, link, end tag or picture.
ODD = "[red] [/red] [link=x] :key: [bold]cat[/]"


def told_to(file, *, is_terminal):
    reporter = Console(file, is_terminal=is_terminal)
    reporter.say(ODD)
    reporter.stage("read")
    reporter.progress(0.25, f"reading {ODD}")
    reporter.stage("search")
    reporter.say("a line that stays")
    reporter.progress(0.5, "trial 3")
    reporter.close()
    return reporter


def test_elsewhere_than_on_a_terminal_it_writes_plain_lines():
    file = io.StringIO()
    told_to(file, is_terminal=False)
    assert file.getvalue().splitlines() == [ODD, "[read]", "[search]", "a line that stays"]


def test_a_terminal_shows_stage_share_and_detail_and_keeps_lines():
    file = io.StringIO()
    told_to(file, is_terminal=True)
    shown = file.getvalue()
    for part in (ODD, "read", "search", "50 %", "used", "left", "trial 3", "a line that stays"):
        assert part in shown
    assert "\x1b[?25l" in shown, "no live line was drawn"
    assert shown.rindex("\x1b[?25h") > shown.rindex("\x1b[?25l"), "the cursor stays hidden"


# Control characters move the cursor and are not shown; they have no place in a line.
lines = st.text(st.characters(codec="utf-8", exclude_categories=("C", "Zl", "Zp")), min_size=1)


@given(lines)
def test_what_it_is_told_is_what_it_says(line):
    file = io.StringIO()
    Console(file, is_terminal=False).say(line)
    assert file.getvalue() == line + "\n"


def test_closing_twice_or_without_a_stage_is_nothing():
    reporter = Console(io.StringIO(), is_terminal=True)
    reporter.close()
    told_to(io.StringIO(), is_terminal=True).close()


@pytest.mark.parametrize("is_terminal", [True, False])
def test_a_closed_file_is_no_failure(is_terminal):
    file = io.StringIO()
    file.close()
    told_to(file, is_terminal=is_terminal)


def test_a_reader_that_went_away_is_no_failure():
    reading, writing = os.pipe()
    os.close(reading)
    file = os.fdopen(writing, "w", buffering=1)
    told_to(file, is_terminal=False)
    with pytest.raises(BrokenPipeError, match="Broken pipe"):
        file.close()


def test_an_encoding_that_lacks_a_letter_is_no_failure():
    raw = io.BytesIO()
    file = io.TextIOWrapper(raw, encoding="ascii", write_through=True)
    Console(file, is_terminal=False).say("lite0 → café")
    assert raw.getvalue() == b"lite0 ? caf?\n"


def test_a_process_without_standard_error_goes_on_and_writes_nowhere_else():
    code = (
        "from autobackbone.console import Console; c = Console(); c.say('x'); c.stage('read'); c.close(); print('on')"
    )
    line = f'exec "{sys.executable}" -c "{code}" 2>&-'
    done = subprocess.run(["/bin/sh", "-c", line], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "on\n")


@pytest.mark.parametrize("is_terminal", [True, False])
def test_what_a_terminal_would_obey_is_shown_as_numbers(is_terminal):
    file = io.StringIO()
    reporter = Console(file, is_terminal=is_terminal)
    reporter.stage("read")
    reporter.say("class \x1b]0;owned\x07 \x9b31m \u202eevil\rX\nsecond line")
    reporter.progress(0.5, "reading \x1b[2J")
    reporter.close()
    shown = file.getvalue()
    assert "class \\x1b]0;owned\\x07 \\x9b31m \\u202eevil\\rX\n" in shown
    assert "second line\n" in shown
    assert "\x1b]0;" not in shown
    assert "\x1b[2J" not in shown
    assert "\x9b" not in shown


def test_a_terminal_shows_the_front_below_and_cuts_what_is_too_long():
    file, front = io.StringIO(), [f"{number} ms {ODD} {'x' * 300}" for number in range(12)]
    reporter = Console(file, is_terminal=True)
    reporter.standing(lambda: pytest.fail("no stage has begun"))
    reporter.stage("search")
    reporter.standing(lambda: front)
    reporter.progress(0.5, "trial 3")
    reporter.say("a line that stays")
    reporter.close()
    shown = file.getvalue()
    assert f"7 ms {ODD}" in shown
    assert "8 ms" not in shown
    assert "and 4 more on the front" in shown
    assert "x" * 200 not in shown


def test_elsewhere_nobody_asks_for_the_front():
    reporter = Console(io.StringIO(), is_terminal=False)
    reporter.stage("search")
    reporter.standing(lambda: pytest.fail("it is not shown"))
