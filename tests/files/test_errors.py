"""Errors as one line."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vclip_jax.files.errors import few, first_line, one_line


@pytest.mark.parametrize(
    ("error", "line", "first"),
    [
        (ValueError(" of two\n  lines\n"), "of two lines", "of two"),
        (KeyError(), "KeyError", "KeyError"),
        (OSError("\n"), "OSError", "OSError"),
    ],
)
def test_an_error_is_one_line_and_never_empty(error, line, first):
    assert one_line(error) == line
    assert one_line(error, 4) == line[:4]
    assert first_line(error) == first


@pytest.mark.parametrize(
    ("names", "shown"),
    [
        ([], ""),
        ("ab", "a, b"),
        ("abcdefgh", "a, b, c, d, e, f, g, h"),
        ("abcdefghi", "a, b, c, d, e, f, g, h and 1 more"),
        (range(100_000), "0, 1, 2, 3, 4, 5, 6, 7 and 99,992 more"),
        (["x" * 10**6, "y"], f"{'x' * 200}..., y"),
    ],
)
def test_a_message_shows_a_few_names(names, shown):
    assert few(names) == shown


def test_as_many_names_are_shown_as_are_asked_for():
    assert few("abc", 2, "; ") == "a; b and 1 more"


@given(st.lists(st.text(), max_size=12))
def test_names_of_strangers_neither_break_the_line_nor_command_the_terminal(names):
    message = few(names)
    assert message == message.replace("\n", "").replace("\r", "")
    assert not {unicodedata.category(mark) for mark in message} & {"Cc", "Cf", "Cs", "Zl", "Zp"}
