"""Label tables with the quirks of those who made them."""

import json

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest
import xlwt
from hypothesis import given
from hypothesis import strategies as st

from vclip_jax.datasets.tables import decode_text, read_table, require, whole

EXPECTED = [
    {"name": "a.jpg", "grade": "1", "备注": "正常"},
    {"name": "b.jpg", "grade": "", "备注": "x"},
]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "gbk", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_in_any_encoding_with_any_separator(tmp_path, encoding, newline, delimiter):
    lines = [["name ", " grade", "备注", "", ""], ["a.jpg", " 1 ", "正常", "", ""], [""] * 5,
             ["b.jpg", "", "x"]]  # fmt: skip
    text = newline.join(delimiter.join(line) for line in lines) + newline
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    assert read_table(tmp_path / "t.csv") == EXPECTED


def test_old_and_new_excel_files_give_the_same(tmp_path):
    rows = [["name ", "grade", "备注", None], ["a.jpg", 1.0, "正常", None], [None] * 4,
            ["b.jpg", None, "x", None]]  # fmt: skip
    new = openpyxl.Workbook()
    new.active.title = "Feuil1"
    for row in rows:
        new.active.append(row)
    new.create_sheet("other").append(["only"])
    new.save(tmp_path / "t.xlsx")
    old = xlwt.Workbook()
    sheet = old.add_sheet("Feuil1")
    for r, row in enumerate(rows):
        for c, cell in enumerate(row):
            if cell is not None:
                sheet.write(r, c, cell)
    old.add_sheet("other").write(0, 0, "only")
    old.save(str(tmp_path / "t.xls"))
    for name in ("t.xlsx", "t.xls"):
        assert read_table(tmp_path / name) == EXPECTED
        assert read_table(tmp_path / name, sheet="other") == []
        with pytest.raises(ValueError, match=r"no sheet 'third', only Feuil1, other"):
            read_table(tmp_path / name, sheet="third")


def test_rows_above_the_header_are_skipped(tmp_path):
    (tmp_path / "t.csv").write_text("a title,,\n\nname,grade\nx,1\n")
    assert read_table(tmp_path / "t.csv", header_row=2) == [{"name": "x", "grade": "1"}]


def test_parquet_gives_text_and_leaves_images_alone(tmp_path):
    table = pyarrow.table(
        {"image": [{"bytes": b"x", "path": "a"}], "caption": ["正常"], "grade": [2], "p": [0.5]}
    )
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet")
    assert read_table(tmp_path / "t.parquet") == [{"caption": "正常", "grade": "2", "p": "0.5"}]


def test_json_lines_give_text(tmp_path):
    rows = [{"image": "a.png", "label": 1, "on": True}, {"image": "b.png", "label": None}]
    text = "\n\n".join(json.dumps(row) for row in rows)
    (tmp_path / "t.jsonl").write_text(text)
    assert read_table(tmp_path / "t.jsonl") == [
        {"image": "a.png", "label": "1", "on": "1"},
        {"image": "b.png", "label": ""},
    ]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.csv", None, "cannot read the table: No such file"),
        ("none.xlsx", None, "cannot read the table"),
        ("empty.csv", b"", "the table is empty"),
        ("blank.csv", b",,\n1,2,3\n", "no row with the columns' names"),
        ("twice.csv", b"a,b,a\n", "the column 'a' is there twice"),
        ("zero.csv", b"a,b\n\0,1\n", "zero bytes"),
        ("binary.csv", b"a,b\n\xff\xff\xff\xff,1\n", "neither UTF-8 nor GB18030"),
        ("t.xlsx", b"no zip", "not an Excel file"),
        ("t.xls", b"no ole", "not an Excel file"),
        ("t.parquet", b"PAR1", "not a Parquet file"),
        ("t.jsonl", b'{"a": 1}\n[]\n', "line 2 is not an object"),
        ("u.jsonl", b'{"a": 1}\n{"a"', "line 2 is not JSON"),
        ("t.docx", b"", "expected .csv"),
    ],
)
def test_what_is_no_table_is_one_line(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(ValueError, match=name) as caught:
        read_table(tmp_path / name)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@given(st.binary(max_size=300))
def test_any_bytes_are_rows_or_a_value_error(tmp_path_factory, data):
    path = tmp_path_factory.getbasetemp() / "fuzz.csv"
    path.write_bytes(data)
    try:
        rows = read_table(path)
    except ValueError:
        return
    assert all(isinstance(value, str) for row in rows for value in row.values())


def test_missing_columns_are_named(tmp_path):
    with pytest.raises(ValueError, match=r"t\.csv: expected the columns b, c, got \['a'\]"):
        require("t.csv", [{"a": "1"}], ["a", "b", "c"])


@pytest.mark.parametrize(
    ("cell", "value"),
    [("0", 0), ("4", 4), ("5", None), ("", None), ("-1", None), ("1.5", None), ("²", None)],
)
def test_a_grade_is_a_whole_number_in_its_range(cell, value):
    assert whole(cell, 4) == value


def test_text_that_is_both_is_taken_for_utf8():
    assert decode_text("眼底".encode()) == "眼底"


@given(
    st.integers(0, 4),
    st.sampled_from(["", ".", ".0", ".00"]),
    st.text(" \t", max_size=2),
    st.sampled_from(["", "0", "00"]),
)
def test_a_grade_is_itself_however_a_program_wrote_it(grade, decimals, space, zeros):
    assert whole(f"{space}{zeros}{grade}{decimals}{space}", 4) == grade


@given(st.floats(allow_nan=True))
def test_no_broken_number_is_a_grade(number):
    value = whole(str(number), 4)
    assert value == (int(number) if str(number) in ("0.0", "1.0", "2.0", "3.0", "4.0") else None)
