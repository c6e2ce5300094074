"""Tables that tell left from right: a row for both eyes, sheets, columns and folders of sides."""

import openpyxl
import pytest

from vclip_jax.datasets.own import eyes, generic
from vclip_jax.datasets.own.listed import listed_paths

from .test_own_tables import labels, place, reasons, splits


def book(path, sheets, merged=()):
    made = openpyxl.Workbook()
    made.remove(made.active)
    for name, rows in sheets.items():
        sheet = made.create_sheet(name)
        for row in rows:
            sheet.append(row)
        for cells in merged:
            sheet.merge_cells(cells)
    made.save(path)


@pytest.mark.parametrize(
    ("text", "side", "rest"),
    [
        ("Left-Fundus", "left", "Fundus"),
        ("image_right", "right", "image"),
        ("rightImage", "right", "Image"),
        ("OD", "right", ""),
        ("OS_grade", "left", "grade"),
        ("左眼图像", "left", "图像"),
        ("右眼底图像", "right", "眼底图像"),
        ("图像（左眼）", "left", "图像"),
        ("右眼(OD)诊断", "right", "诊断"),
        ("Left eye image", "left", "image"),
        ("左右眼", "", ""),
        ("title", "", "title"),
        ("close", "", "close"),
    ],
)
def test_sides_are_known_by_their_words(text, side, rest):
    assert (eyes.side_of(text), eyes.without_side(text)) == (side, rest)


@pytest.mark.parametrize("title", [[], ["2024 眼底筛查"]])
@pytest.mark.parametrize(
    "header",
    [
        ("Left-Fundus", "Right-Fundus", "Left-Diagnosis", "Right-Diagnosis"),
        ("左眼图像", "右眼图像", "左眼诊断", "右眼诊断"),
        ("OS", "OD", "OS grade", "OD grade"),
        ("image_left", "image_right", "label_left", "label_right"),
        ("左眼", "右眼", "左眼诊断", "右眼诊断"),
        ("left_scan", "right_scan", "left_label", "right_label"),
    ],
)
def test_a_row_of_both_eyes_is_two_photographs_with_labels_of_their_own(tmp_path, header, title):
    place(tmp_path, *(f"images/{i}_{side}.jpg" for i in range(30) for side in ("l", "r")))
    rows = [["ID", *header], *([i, f"{i}_l.jpg", f"{i}_r.jpg", "dr", "amd"] for i in range(30))]
    rows[3][2] = rows[3][4] = None  # a patient with one eye
    book(tmp_path / "t.xlsx", {"a": [title, *rows] if title else rows}, ["A1:E1"] if title else [])
    listing = generic.scan(tmp_path)
    expected = {f"images/{i}_l.jpg": "dr" for i in range(30)}
    expected |= {f"images/{i}_r.jpg": "amd" for i in range(30) if i != 2}
    assert labels(listing) == expected
    assert reasons(listing) == {"missing row": 1}
    assert "t.xlsx: 1 rows name no photograph of the right eye." in listing.guesses
    of = splits(listing)
    assert all(of[f"images/{i}_l.jpg"] == of[f"images/{i}_r.jpg"] for i in range(30) if i != 2)
    assert len(set(of.values())) == 3
    assert "t.xlsx: a row holds both eyes and lists a photograph of each." in listing.guesses
    assert any("the left eye: image is " in note for note in listing.guesses)


def test_several_rows_of_one_person_stay_in_one_split(tmp_path):
    place(tmp_path, *(f"{i}{side}.jpg" for i in range(40) for side in "lr"))
    rows = [f"p{i // 4},{i}l.jpg,{i}r.jpg,dr,amd" for i in range(40)]
    header = "patient_id,left_image,right_image,left_label,right_label"
    (tmp_path / "t.csv").write_text("\n".join([header, *rows]))
    of = splits(generic.scan(tmp_path))
    for person in range(10):
        eyes_of = [f"{i}{side}.jpg" for i in range(person * 4, person * 4 + 4) for side in "lr"]
        assert len({of[key] for key in eyes_of}) == 1


def test_one_diagnosis_for_both_eyes_is_refused_until_it_is_named(tmp_path):
    place(tmp_path, "1l.jpg", "1r.jpg", "2l.jpg", "2r.jpg")
    text = "Left-Fundus,Right-Fundus,diagnosis\n1l.jpg,1r.jpg,dr\n2l.jpg,2r.jpg,amd\n"
    (tmp_path / "t.csv").write_text(text)
    for options in ({}, {"image_column": "Left-Fundus"}):
        with pytest.raises(ValueError, match=r"holds both eyes, but 'diagnosis' .*--label-column"):
            generic.scan(tmp_path, **options)
    named = generic.scan(tmp_path, label_column="diagnosis")
    assert labels(named) == {"1l.jpg": "dr", "1r.jpg": "dr", "2l.jpg": "amd", "2r.jpg": "amd"}


def test_a_patients_report_beside_labels_of_eyes_is_not_read_and_said(tmp_path):
    place(tmp_path, "1l.jpg", "1r.jpg")
    header = "image_left,image_right,label_left,label_right,report"
    (tmp_path / "t.csv").write_text(f"{header}\n1l.jpg,1r.jpg,dr,amd,both\n")
    listing = generic.scan(tmp_path)
    assert [item.caption for item in listing.items] == ["dr", "amd"]
    assert any("'report' is for both eyes and not read" in note for note in listing.guesses)


@pytest.mark.parametrize("name", ["left_keywords", "right_keywords", "keywords"])
def test_a_column_of_one_side_names_that_of_the_other_too(tmp_path, name):
    place(tmp_path, "1l.jpg", "1r.jpg")
    header = "left_image,right_image,left_keywords,right_keywords"
    (tmp_path / "t.csv").write_text(f"{header}\n1l.jpg,1r.jpg,dr,amd\n")
    assert labels(generic.scan(tmp_path, label_column=name)) == {"1l.jpg": "dr", "1r.jpg": "amd"}


def test_of_one_named_eye_the_other_is_left_out_and_said(tmp_path):
    place(tmp_path, "1l.jpg", "1r.jpg")
    header = "Left-Fundus,Right-Fundus,Left-Diagnosis,Right-Diagnosis"
    (tmp_path / "t.csv").write_text(f"{header}\n1l.jpg,1r.jpg,dr,amd\n")
    listing = generic.scan(tmp_path, image_column="Left-Fundus")
    assert labels(listing) == {"1l.jpg": "dr"}
    assert reasons(listing) == {"missing row": 1}
    assert any("photographs of 'Right-Fundus' are left out" in one for one in listing.guesses)


def test_a_row_of_one_photograph_stays_one_whatever_sides_its_columns_tell(tmp_path):
    place(tmp_path, "0.jpg", "1.jpg", "2.jpg")
    (tmp_path / "t.csv").write_text("filename,label,OD_grade,OS_grade\n0.jpg,dr,1,2\n1,amd,2,1\n")
    assert labels(generic.scan(tmp_path)) == {"0.jpg": "dr", "1.jpg": "amd"}
    (tmp_path / "t.csv").write_text("image,label,OD,OS\n0.jpg,dr,1,2\n1.jpg,amd,2,1\n")
    assert labels(generic.scan(tmp_path)) == {"0.jpg": "dr", "1.jpg": "amd"}
    (tmp_path / "t.csv").write_text("id,label,left_vision,right_vision\n0,dr,1,1\n1,amd,1,1\n")
    assert labels(generic.scan(tmp_path)) == {"0.jpg": "dr", "1.jpg": "amd"}


def test_of_several_pairs_that_name_photographs_none_is_guessed(tmp_path):
    place(tmp_path, "1l.jpg", "1r.jpg", "1x.jpg", "1y.jpg")
    header = "left_a,right_a,left_b,right_b,left_label,right_label"
    (tmp_path / "t.csv").write_text(f"{header}\n1l.jpg,1r.jpg,1x.jpg,1y.jpg,dr,amd\n")
    with pytest.raises(ValueError, match=r"'left_a', 'right_a', 'left_b'.*--image-column.*'a'$"):
        generic.scan(tmp_path)
    for name, found in {
        "a": {"1l.jpg": "dr", "1r.jpg": "amd"},
        "B": {"1x.jpg": "dr", "1y.jpg": "amd"},
        "right_b": {"1y.jpg": "amd"},
    }.items():
        assert labels(generic.scan(tmp_path, image_column=name)) == found


def test_several_columns_of_photographs_without_a_known_name_are_all_named(tmp_path):
    place(tmp_path, "1m.jpg", "1d.jpg")
    (tmp_path / "t.csv").write_text("no,macula,disc,label\n1,1m.jpg,1d.jpg,dr\n")
    with pytest.raises(ValueError, match=r"--image-column \(.* named in 'macula', 'disc'\)"):
        generic.scan(tmp_path)
    assert labels(generic.scan(tmp_path, image_column="disc")) == {"1d.jpg": "dr"}


@pytest.mark.parametrize("folders", [("OD", "OS"), ("right", "left"), ("右眼", "左眼")])
@pytest.mark.parametrize("kind", ["sheets", "column", "tables", "row"])
def test_of_photographs_of_one_name_the_side_tells_which(tmp_path, folders, kind):
    od, os = folders
    place(tmp_path, f"{od}/1.jpg", f"{os}/1.jpg", f"{od}/2.jpg", f"{os}/2.jpg")
    header = ["image", "label"]
    right, left = [["1", "dr"], ["2", "amd"]], [["1", "amd"], ["2", "dr"]]
    if kind == "sheets":
        book(tmp_path / "t.xlsx", {"OD": [header, *right], "OS": [header, *left]})
    elif kind == "column":
        rows = [*([*row, "R"] for row in right), *([*row, "左眼"] for row in left)]
        book(tmp_path / "t.xlsx", {"a": [[*header, "eye"], *rows]})
    elif kind == "tables":
        book(tmp_path / "right.xlsx", {"a": [header, *right]})
        book(tmp_path / "left.xlsx", {"a": [header, *left]})
    else:
        rows = [["OD", "OS", "OD label", "OS label"], ["1.jpg", "1.jpg", "dr", "amd"]]
        book(tmp_path / "t.xlsx", {"a": [*rows, ["2.jpg", "2.jpg", "amd", "dr"]]})
    expected = {f"{od}/1.jpg": "dr", f"{od}/2.jpg": "amd"}
    expected |= {f"{os}/1.jpg": "amd", f"{os}/2.jpg": "dr"}
    listing = generic.scan(tmp_path)
    assert labels(listing) == expected
    assert not listing.rejects


def test_a_list_for_predict_names_both_eyes_row_by_row(tmp_path):
    place(tmp_path, "1l.jpg", "1r.jpg", "2l.jpg", "2r.jpg")
    (tmp_path / "t.csv").write_text("Left-Fundus,Right-Fundus\n1l.jpg,1r.jpg\n2l.jpg,2r.jpg\n")
    named = [path.name for path in listed_paths(tmp_path / "t.csv")]
    assert named == ["1l.jpg", "1r.jpg", "2l.jpg", "2r.jpg"]


def test_a_label_of_one_eye_alone_is_no_label_of_the_other(tmp_path):
    place(tmp_path, "1l.jpg", "1r.jpg")
    (tmp_path / "t.csv").write_text("左眼图像,右眼图像,左眼诊断\n1l.jpg,1r.jpg,dr\n")
    with pytest.raises(
        ValueError, match=r"t\.csv: '左眼诊断' is of the left eye, and the other has no"
    ):
        generic.scan(tmp_path, label_column="左眼诊断")
    one = generic.scan(tmp_path, label_column="左眼诊断", image_column="左眼图像")
    assert labels(one) == {"1l.jpg": "dr"}


def test_of_unknown_columns_of_eyes_one_is_said_to_name_both(tmp_path):
    place(tmp_path, "1l.jpg", "1r.jpg")
    header = "Left-Fundus,Right-Fundus,Left-Keywords,Right-Keywords,N,D"
    (tmp_path / "t.csv").write_text(f"{header}\n1l.jpg,1r.jpg,dr,amd,0,1\n")
    with pytest.raises(ValueError, match=r"--label-column, such as 'Left-Keywords'; the other eye"):
        generic.scan(tmp_path)
