import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from autobackbone.showing import harmless


@given(st.text(st.characters(categories=["Cc", "Cs", "Zl", "Zp", "L", "Nd"])))
def test_what_is_shown_is_one_line_that_any_encoding_takes(text):
    shown = harmless(text)
    assert not any(unicodedata.category(character) in {"Cc", "Cs", "Zl", "Zp"} for character in shown)
    assert shown.encode("utf-8").decode("utf-8") == shown
    assert harmless(shown) == shown


@given(st.text(st.characters(exclude_categories=["Cc", "Cs", "Zl", "Zp", "Cf"])))
def test_a_text_of_letters_stays_as_it_is(text):
    assert harmless(text) == text


def test_what_turns_the_direction_of_writing_is_shown_and_ends_of_lines_that_are_meant_stay():
    assert harmless("a\u202eb\u2066c") == "a\\u202eb\\u2066c"
    assert harmless("a\nb\tc", keeps="\n") == "a\nb\\tc"
