"""Errors as one line."""

import pytest

from vclip_jax.files.errors import first_line, one_line


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
