"""Names of columns in two rows: joined where it is clear how, refused where it is not."""

import openpyxl
import pytest

from vclip_jax.datasets.own import generic

UPPER = ["编号", "左眼", "", "右眼", ""]
LOWER = ["", "图像", "诊断", "图像", "诊断"]
ROWS = [["1", "1l.jpg", "dr", "1r.jpg", "amd"], ["2", "2l.jpg", "amd", "2r.jpg", "dr"]]
LABELS = {"1l.jpg": "dr", "1r.jpg": "amd", "2l.jpg": "amd", "2r.jpg": "dr"}


@pytest.fixture
def folder(tmp_path):
    for key in LABELS:
        (tmp_path / key).write_bytes(b"\xff\xd8\xff")
    return tmp_path


def write(folder, rows, merged=(), kind="xlsx"):
    if kind == "csv":
        (folder / "t.csv").write_text("".join(",".join(row) + "\n" for row in rows))
        return
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append([cell or None for cell in row])
    for cells in merged:
        book.active.merge_cells(cells)
    book.save(folder / "t.xlsx")


def labels(listing):
    return {item.key: listing.classes[item.label] for item in listing.items}


@pytest.mark.parametrize("title", [[], [["眼底筛查 2024"], []]])
@pytest.mark.parametrize(
    ("kind", "merged"),
    [("csv", []), ("xlsx", []), ("xlsx", ["B{0}:C{0}", "D{0}:E{0}", "A{0}:A{1}"])],
)
def test_names_below_those_of_the_eyes_are_joined(folder, title, kind, merged):
    at = [cells.format(len(title) + 1, len(title) + 2) for cells in merged]
    write(folder, [*title, UPPER, LOWER, *ROWS], at, kind)
    listing = generic.scan(folder)
    assert labels(listing) == LABELS
    first = len(title) + 1
    said = f"rows {first} and {first + 1} are read as one row of names, such as '左眼 图像'."
    assert any(said in guess for guess in listing.guesses)


def test_names_over_names_may_be_given_where_none_is_known(folder):
    upper, lower = ["", "OS", "", "OD", ""], ["no", "Bild", "Befund", "Bild", "Befund"]
    write(folder, [upper, lower, *ROWS], ["B1:C1", "D1:E1"])
    options = {"image_column": "OS Bild", "label_column": "OS Befund"}
    assert labels(generic.scan(folder, **options)) == {"1l.jpg": "dr", "2l.jpg": "amd"}


def test_below_a_row_that_has_the_photograph_the_other_names_are_read(folder):
    rows = [["image", "label", "age", ""], ["", "", "years", "months"]]
    rows += [["1l.jpg", "dr", "50", "1"], ["2l.jpg", "amd", "60", "2"]]
    write(folder, rows, ["A1:A2", "B1:B2", "C1:D1"])
    listing = generic.scan(folder)
    assert labels(listing) == {"1l.jpg": "dr", "2l.jpg": "amd"}
    assert any("age is 'age years'; not read: 'age months'" in one for one in listing.guesses)


@pytest.mark.parametrize(
    ("upper", "lower"),
    [
        # Whether 年龄 is of the right eye alone nobody knows.
        (["左眼", "", "右眼", "", ""], ["图像", "诊断", "图像", "诊断", "年龄"]),
        (["左眼", "右眼", "", "", ""], ["图像", "图像", "诊断", "诊断", "x"]),
        (["image", "label", "", "", ""], ["", "a", "b", "c", "d"]),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "xlsx"])
def test_what_is_not_clear_is_refused_with_both_rows(folder, upper, lower, kind):
    write(folder, [upper, lower, ["1l.jpg", "1r.jpg", "x", "y", "z"]], (), kind)
    with pytest.raises(ValueError, match=r"rows 1 and 2 both look like names \(.*; .*\)") as caught:
        generic.scan(folder)
    assert "write one row of names" in str(caught.value)


def test_a_column_twice_below_a_title_is_still_a_column_twice(folder):
    write(
        folder, [["Screening 2024"], ["image", "label", "label"], ["1l.jpg", "a", "b"]], (), "csv"
    )
    with pytest.raises(ValueError, match="the column 'label' occurs twice"):
        generic.scan(folder)


def test_a_first_row_without_a_photograph_is_a_reject_and_no_row_of_names(folder):
    write(folder, [["image", "label", "x"], ["", "dr", "1"], ["1l.jpg", "amd", "2"]], (), "csv")
    listing = generic.scan(folder)
    assert labels(listing) == {"1l.jpg": "amd"}
