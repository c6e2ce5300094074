"""Label tables with the quirks of those who made them."""

import json
import os
import resource
import zipfile

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest
import xlwt
from hypothesis import given
from hypothesis import strategies as st

from vclip_jax.datasets.formats.tables import read_table, require, whole
from vclip_jax.files.text import decode_text

EXPECTED = [
    {"name": "a.jpg", "grade": "1", "备注": "正常"},
    {"name": "b.jpg", "grade": "", "备注": "x"},
]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "gb18030", "gbk", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t"])
def test_csv_in_any_encoding_with_any_separator(tmp_path, encoding, newline, delimiter):
    lines = [
        ["name ", " grade", "备注", "", ""],
        ["a.jpg", " 1 ", "正常", "", ""],
        [""] * 5,
        ["b.jpg", "", "x"],
    ]
    text = newline.join(delimiter.join(line) for line in lines) + newline
    (tmp_path / "t.csv").write_bytes(text.encode(encoding))
    assert read_table(tmp_path / "t.csv") == EXPECTED


def test_old_and_new_excel_files_give_the_same(tmp_path):
    rows = [
        ["name ", "grade", "备注", None],
        ["a.jpg", 1.0, "正常", None],
        [None] * 4,
        ["b.jpg", None, "x", None],
    ]
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
        ("twice.csv", b"a,b,a\n", "the column 'a' occurs twice"),
        ("twice.jsonl", b'{"a": 1, "b": 2, "a": 3}', "line 1 has the key 'a' twice"),
        ("twice.json", b'[{"a": 1}, {"b": 2, "b": 3}]', "the file has the key 'b' twice"),
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
    with pytest.raises(ValueError, match=r"t\.csv: expected the columns b, c, got 'a'"):
        require("t.csv", [{"a": "1"}], ["a", "b", "c"])


@pytest.mark.parametrize(
    ("cell", "value"),
    [("0", 0), ("4", 4), ("5", None), ("", None), ("-1", None), ("1.5", None), ("²", None)],
)
def test_a_grade_is_a_whole_number_in_its_range(cell, value):
    assert whole(cell, 4) == value


def test_text_that_is_both_is_taken_for_utf8():
    assert decode_text("眼底".encode()) == "眼底"


def test_ascii_with_non_breaking_spaces_of_a_western_encoding_is_read(tmp_path):
    (tmp_path / "t.csv").write_bytes(b"ID,ON\xa0,RD\r\n1,0,1\r\n")
    assert read_table(tmp_path / "t.csv") == [{"ID": "1", "ON": "0", "RD": "1"}]
    with pytest.raises(ValueError, match="neither UTF-8 nor GB18030"):
        decode_text("caf\xe9\xa0bar, caf\xe9 noir".encode("latin-1"))


# --- Small files that would take all memory.


def xlsx_of(tmp_path, *cells, rename=lambda sheet: sheet):
    book = openpyxl.Workbook()
    for name, value in {"A1": "image", "B1": "label", **dict(cells)}.items():
        book.active[name] = value
    book.save(tmp_path / "plain.xlsx")
    with (
        zipfile.ZipFile(tmp_path / "plain.xlsx") as old,
        zipfile.ZipFile(tmp_path / "t.xlsx", "w", zipfile.ZIP_DEFLATED) as new,
    ):
        for info in old.infolist():
            data = old.read(info)
            new.writestr(info.filename, rename(data) if "sheet1" in info.filename else data)
    return tmp_path / "t.xlsx"


@pytest.mark.parametrize("last", ["XFD1048576", "ZZ200000"])
def test_a_cell_far_outside_takes_neither_the_process_nor_its_memory(tmp_path, last):
    path = xlsx_of(tmp_path, ("C3", 1), rename=lambda sheet: sheet.replace(b"C3", last.encode()))
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"t\.xlsx: .*delete empty rows and columns") as caught:
        read_table(path)
    assert "\n" not in str(caught.value)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20  # KiB: 1 GiB


def test_more_rows_than_excel_can_have_are_refused_before_they_are_copied(tmp_path):
    row = b'<row><c t="inlineStr"><is><t>image</t></is></c></row>'
    many = row * ((1 << 20) + 2)
    path = xlsx_of(
        tmp_path, rename=lambda sheet: sheet.replace(b"<sheetData>", b"<sheetData>" + many)
    )
    assert path.stat().st_size < 1 << 20
    with pytest.raises(ValueError, match=r"the sheet has 1,0\d\d,\d{3} rows"):
        read_table(path)


def test_a_cell_at_the_right_edge_is_no_reason_to_refuse(tmp_path):
    path = xlsx_of(tmp_path, ("C3", 1), rename=lambda sheet: sheet.replace(b"C3", b"XFD3"))
    assert read_table(path) == []  # it has no name


def test_a_sheet_is_read_as_before_in_a_process_of_its_own(tmp_path):
    path = xlsx_of(tmp_path, ("A2", "眼.png"), ("B2", 3.0), ("A3", True), ("B3", "a\nb"))
    assert read_table(path) == [
        {"image": "眼.png", "label": "3"},
        {"image": "1", "label": "a\nb"},
    ]
    with pytest.raises(ValueError, match="there is no sheet 'x', only Sheet"):
        read_table(path, sheet="x")


def parquet_of(tmp_path, table, **options):
    pyarrow.parquet.write_table(table, tmp_path / "t.parquet", store_schema=False, **options)
    assert (tmp_path / "t.parquet").stat().st_size < 2_000_000
    return tmp_path / "t.parquet"


def repeated(value, count, kind):
    indices = pyarrow.array([0], pyarrow.int32()).take(pyarrow.array([0] * count))
    return pyarrow.DictionaryArray.from_arrays(indices, pyarrow.array([value], kind))


def test_a_text_that_a_parquet_file_repeats_is_counted_before_it_is_written_out(tmp_path):
    table = pyarrow.table({"caption": repeated("x" * 1_000_000, 20_000, pyarrow.string())})
    path = parquet_of(tmp_path, table)  # 20 GB
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(ValueError, match=r"t\.parquet: its texts have more than"):
        read_table(path)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 1 << 20


def test_a_parquet_file_of_too_many_rows_is_refused_by_its_footer(tmp_path):
    table = pyarrow.table({"label": pyarrow.nulls(10_000_001, pyarrow.int8())})
    with pytest.raises(ValueError, match="it has 10,000,001 rows"):
        read_table(parquet_of(tmp_path, table))


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "xlsx", "xls", "parquet"])
def test_a_pipe_is_no_table(tmp_path, suffix):
    os.mkfifo(tmp_path / f"t.{suffix}")
    with pytest.raises(ValueError, match="a pipe, a socket or a device"):
        read_table(tmp_path / f"t.{suffix}")


def test_deep_json_lines_are_refused(tmp_path):
    (tmp_path / "t.jsonl").write_text('{"a": 1}\n{"a": ' + "[" * 100_000)
    with pytest.raises(ValueError, match="line 2 is nested more than"):
        read_table(tmp_path / "t.jsonl")


def test_a_damaged_sheet_is_one_line(tmp_path):
    book = openpyxl.Workbook()
    for row in range(200):
        book.active.append([f"image {row}", row])
    book.save(tmp_path / "t.xlsx")
    with zipfile.ZipFile(tmp_path / "t.xlsx") as file:
        start = file.getinfo("xl/worksheets/sheet1.xml").header_offset
    content = bytearray((tmp_path / "t.xlsx").read_bytes())
    content[start + 80 : start + 200] = bytes(120)
    (tmp_path / "t.xlsx").write_bytes(content)
    with pytest.raises(ValueError, match=r"t\.xlsx: ") as caught:
        read_table(tmp_path / "t.xlsx")
    assert "\n" not in str(caught.value)


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


def test_text_that_gives_characters_of_no_standard_is_not_taken_for_chinese():
    with pytest.raises(ValueError, match="neither UTF-8 nor GB18030"):
        decode_text("病灶，視網膜病變，糖尿病，黃斑部".encode("big5"))


@pytest.mark.parametrize("suffix", ["csv", "jsonl", "json", "parquet"])
def test_columns_that_differ_by_white_space_alone_are_one_twice(tmp_path, suffix):
    path, row = tmp_path / f"t.{suffix}", {"image": "a", "label": 1, " label\t": 2}
    if suffix == "csv":
        path.write_text("image,label, label\t\na,1,2\n")
    elif suffix == "parquet":
        table = pyarrow.table({name: [value] for name, value in row.items()})
        pyarrow.parquet.write_table(table, path)
    else:
        path.write_text(json.dumps(row if suffix == "jsonl" else [{"image": "b"}, row]))
    with pytest.raises(ValueError, match="the column 'label' occurs twice") as caught:
        read_table(path)
    assert {"jsonl": "line 1: ", "json": "entry 2: "}.get(suffix, "t.") in str(caught.value)
