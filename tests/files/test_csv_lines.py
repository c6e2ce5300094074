"""Lines of CSV: one row a line, and nothing that a spreadsheet runs."""

import csv
import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vclip_jax.files.csv_lines import csv_line


@given(st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\0")), min_size=2))
def test_every_cell_comes_back_and_none_is_a_formula(cells):
    lines = io.StringIO(f"{csv_line(cells)}\r\n" * 2, newline="")
    for row in csv.reader(lines):
        for cell, found in zip(cells, row, strict=True):
            assert found in (cell, f"'{cell}")
            assert found[:1] not in set("=@\t\r")


@pytest.mark.parametrize("cell", ["=1+1", "+A1", "-A1", "@SUM(A1)", "\t=1", "\r=1", "-1+A1", "=1"])
def test_what_looks_like_a_formula_gets_a_mark(cell):
    (row,) = csv.reader(io.StringIO(csv_line([cell, "x"]), newline=""))
    assert row == [f"'{cell}", "x"]


def test_numbers_stay_as_they_are():
    assert csv_line([-1, -0.5, "-0.5000", "+1", "", "x-1"]) == "-1,-0.5,-0.5000,+1,,x-1"
