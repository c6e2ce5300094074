"""Tables of people's own photographs, as people write them."""

import csv
import json
import unicodedata
from collections import Counter

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vclip_jax.datasets.formats import blobs, tables
from vclip_jax.datasets.ingest import data_card
from vclip_jax.datasets.listing import anonymous
from vclip_jax.datasets.own import generic

from .listings import labels, place, reasons, splits

KINDS = ("amd", "dr", "glaucoma", "normal")


@pytest.fixture
def two(tmp_path):
    """images/a.jpg and images/b.jpg."""
    place(tmp_path, "images/a.jpg", "images/b.jpg")
    return tmp_path


BOTH = {"images/a.jpg": "normal", "images/b.jpg": "dr"}


@pytest.mark.parametrize(
    "header",
    [
        "image,label",
        "Image,Label",
        "Image Path,CLASS",
        "filename,category",
        "img_id,grade",
        "id_code,diagnosis",
        "FilePath,Retinopathy grade",
        "图片,标签",
        "文件名,诊断",
        "图像 路径,类别",
        "file-name,target",
        "ＩＭＡＧＥ,Level",
        "image_id,disease",
    ],
)
def test_usual_names_of_columns_are_known(two, header):
    (two / "t.csv").write_text(f"{header}\nimages/a.jpg,normal\nimages/b.jpg,dr\n")
    assert labels(generic.scan(two)) == BOTH


def test_what_was_guessed_of_columns_is_noted(two):
    (two / "t.csv").write_text("id_code,diagnosis,age\na,normal,50\nb,dr,60\n")
    listing = generic.scan(two)
    assert labels(listing) == BOTH
    said = "t.csv: image is 'id_code', label is 'diagnosis', age is 'age'."
    assert said in listing.guesses


def test_other_columns_are_named_by_options(two):
    (two / "t.csv").write_text("Bild,Befund,Art,Teil\na,Text,normal,val\nb,Wort,dr,test\n")
    with pytest.raises(ValueError, match=r"t\.csv: no column .*'Bild', 'Befund'.*--image-column"):
        generic.scan(two)
    options = {"image_column": "bild", "caption_column": "Befund", "split_column": "Teil"}
    listing = generic.scan(two, label_column="Art", **options)
    assert labels(listing) == BOTH
    assert [item.caption for item in listing.items] == ["Text", "Wort"]
    assert splits(listing) == {"images/a.jpg": "validation", "images/b.jpg": "test"}
    with pytest.raises(ValueError, match=r"t\.csv: there is no column 'stage' for --label-column"):
        generic.scan(two, label_column="stage", **options)


def test_of_several_labels_none_is_guessed(two):
    (two / "t.csv").write_text("image,Retinopathy grade,disease\nimages/a.jpg,0,x\n")
    with pytest.raises(ValueError, match=r"'disease', 'Retinopathy grade' may .*--label-column"):
        generic.scan(two)
    assert len(generic.scan(two, label="disease").items) == 1


@pytest.mark.parametrize(
    "cell",
    [
        "images/a.jpg",
        "./images/a.jpg",
        "images\\a.jpg",
        ".\\images\\a.jpg",
        "a.jpg",
        "a",
        "IMAGES/A.JPG",
        "images/a",
        "D:\\study\\images\\a.jpg",
        "D:/x/a.jpg",
        "/home/me/images/a.jpg",
        "\\\\server\\share\\images\\a.jpg",
        " images/a.jpg ",
    ],
)
def test_a_photograph_is_found_as_people_name_it(two, cell):
    (two / "t.csv").write_text(f"image,label\n{cell},normal\n")
    assert labels(generic.scan(two)) == {"images/a.jpg": "normal"}


def test_absolute_paths_lose_one_start_for_all_rows(tmp_path):
    place(tmp_path, "p1/eye.jpg", "p2/eye.jpg")
    rows = [f"/data/study/p{i}/eye.jpg,{label}" for i, label in ((1, "dr"), (2, "amd"), (3, "x"))]
    (tmp_path / "t.csv").write_text("\n".join(["image,label", *rows]))
    listing = generic.scan(tmp_path)
    assert labels(listing) == {"p1/eye.jpg": "dr", "p2/eye.jpg": "amd"}
    assert [one.key for one in listing.rejects] == ["p3/eye.jpg"]
    assert "t.csv: paths below '/data/study' are taken as below the folder." in listing.guesses


def test_nothing_outside_the_folder_is_named(two):
    place(two.parent, "secret.jpg")
    source = two / "images"
    for cell in ("../../secret.jpg", str(two.parent / "secret.jpg"), "x/../../../secret.jpg"):
        (source / "t.csv").write_text(f"image,label\n{cell},normal\na,dr\n")
        listing = generic.scan(source)
        assert labels(listing) == {"a.jpg": "dr"}
        assert len(listing.rejects) == 2


@pytest.mark.parametrize("cell", ["x" * 5000 + ".jpg", "/" * 300, "a\0.jpg", "x/" * 3000 + "a.jpg"])
def test_a_path_that_cannot_be_is_a_reject(two, cell):
    (two / "t.jsonl").write_text(json.dumps({"image": cell, "label": "dr"}))
    for source in (two, two / "t.jsonl"):
        assert not generic.scan(source).items
        assert set(reasons(generic.scan(source))) & {"missing image", "outside the folder"}


def test_what_may_be_two_photographs_is_none(tmp_path):
    place(tmp_path, "left/1.jpg", "right/1.jpg", "left/2.jpg")
    (tmp_path / "t.csv").write_text("image,label\n1,dr\n2,dr\n")
    listing = generic.scan(tmp_path)
    assert labels(listing) == {"left/2.jpg": "dr"}
    assert reasons(listing) == {"ambiguous image": 1, "missing row": 2}


def test_of_photographs_of_one_name_the_split_tells_which(tmp_path):
    place(tmp_path, "train_images/1.png", "test_images/1.png")
    (tmp_path / "train.csv").write_text("id_code,diagnosis\n1,0\n")
    (tmp_path / "test.csv").write_text("id_code,diagnosis\n1,3\n")
    listing = generic.scan(tmp_path)
    assert labels(listing) == {"train_images/1.png": "0", "test_images/1.png": "3"}
    assert splits(listing) == {"train_images/1.png": "train", "test_images/1.png": "test"}


def test_a_row_with_too_many_cells_is_refused_with_its_number(two):
    (two / "t.csv").write_text("image,caption,label\na,x,dr\nb,clear margins, no lesion,normal\n")
    with pytest.raises(ValueError, match=r"t\.csv: row 3 has 4 cells for 3 columns"):
        generic.scan(two)
    (two / "t.csv").write_text("image,caption,label,\na,x,dr,\nb,clear margins, no lesion,normal\n")
    with pytest.raises(ValueError, match=r"t\.csv: row 3 has 4 cells for 3 columns"):
        generic.scan(two)


def test_a_row_with_too_few_cells_is_rejected_with_its_number(two):
    (two / "t.csv").write_text("image,label,caption,age\na,dr,x\nb,normal\n")
    listing = generic.scan(two)
    assert labels(listing) == {"images/a.jpg": "dr"}  # the age is not used
    assert [(r.reason, r.detail) for r in listing.rejects] == [
        ("cells are missing", "t.csv, row 3")
    ]


@pytest.mark.parametrize(
    ("rows", "row"),
    [
        (['a.jpg,"x,dr', "b.jpg,y,normal"], 2),
        (["a.jpg,x,dr", 'b.jpg,"y" z,normal'], 3),
        (['a.jpg,"x,dr', 'b.jpg,y",normal'], 2),
        (["a.jpg,x,dr", 'b.jpg,"y,normal', "a.jpg,x,dr", 'b.jpg,y",normal'], 3),
    ],
)
def test_a_stray_quotation_mark_is_refused_with_its_row(two, rows, row):
    (two / "t.csv").write_text("\n".join(["image,caption,label", *rows]) + "\n")
    with pytest.raises(ValueError, match=rf"t\.csv: row {row}"):
        generic.scan(two)


def test_quoted_text_may_hold_anything(two):
    text = 'one, "two"; three\nfour, five\n六'
    with open(two / "t.csv", "w", newline="") as file:
        csv.writer(file).writerows([("image", "caption"), ("a", text), ("b", "x")])
    assert [item.caption for item in generic.scan(two).items] == [text, "x"]
    (two / "t.csv").write_text('image, caption, label\na, "x, y", dr\n')
    assert [item.caption for item in generic.scan(two).items] == ["x, y"]


@pytest.mark.parametrize(
    "start", ["sep=;\r\n", "\ufeffsep=;\n", '"sep=;"\n', "A study of 2024\n\n", "Study;2024;X\n"]
)
def test_lines_above_the_names_are_understood(two, start):
    (two / "t.csv").write_text(start + "image;label\nimages/a.jpg;normal\nimages/b.jpg;dr\n")
    assert labels(generic.scan(two)) == BOTH


def test_a_table_of_tabs_may_be_called_csv(two):
    (two / "t.csv").write_text("filepath\ttitle\nimages/a.jpg\tx, y\nimages/b.jpg\tz\n")
    assert [item.caption for item in generic.scan(two).items] == ["x, y", "z"]


@pytest.mark.parametrize(("name", "delimiter"), [("t.tab", "\t"), ("t.psv", "|"), ("T.TAB", "\t")])
def test_tables_go_by_other_suffixes(two, name, delimiter):
    place(two, "other/c.jpg")
    rows = [("image", "label"), ("a", "normal"), ("b", "dr"), ("c", "x, y")]
    (two / name).write_text("".join(f"{delimiter.join(row)}\n" for row in rows))
    assert labels(generic.scan(two)) == {**BOTH, "other/c.jpg": "x, y"}


def test_parquet_goes_by_its_short_suffix(two):
    rows = {"image": ["a", "b"], "label": ["normal", "dr"]}
    pyarrow.parquet.write_table(pyarrow.table(rows), two / "t.pq")
    assert labels(generic.scan(two)) == BOTH
    (two / "t.pq").unlink()
    shard(two / "data/a.pq", [0, 1], ["normal", "dr"])
    listing = generic.scan(two / "data")
    assert listing.classes == ("normal", "dr")
    assert blobs.read(listing.items[0].image)


@pytest.mark.parametrize("name", ["t.lst", "t.list", "t.dat", "t.csv.bak", "labels"])
def test_a_file_of_another_name_is_noted_with_the_remedy(tmp_path, name):
    place(tmp_path, "dr/a.jpg", "normal/b.jpg")
    (tmp_path / name).write_text("image,label\na,normal\nb,normal\n")
    [note] = [note for note in generic.scan(tmp_path).guesses if "not read: 1" in note]
    assert "give its name the right suffix" in note


def test_excel_sheets_titles_and_merged_cells_are_read(two):
    book = openpyxl.Workbook()
    book.active.append(["说明：标签见第二页"])
    sheet = book.create_sheet("data")
    for row in (["糖尿病筛查 2024"], [], ["图片", "标签"], ["a", "dr"], ["b", None]):
        sheet.append(row)
    sheet.merge_cells("B4:B5")
    book.save(two / "t.xlsx")
    listing = generic.scan(two)
    assert labels(listing) == {"images/a.jpg": "dr", "images/b.jpg": "dr"}
    assert any("names no photograph" in note for note in listing.guesses)


@pytest.mark.parametrize("what", ["sheet", "rows"])
def test_what_excel_hides_is_read_and_said(two, what):
    book = openpyxl.Workbook()
    for row in (["image", "label"], ["a", "dr"]):
        book.active.append(row)
    other = book.create_sheet("old") if what == "sheet" else book.active
    for row in ([["image", "label"]] if what == "sheet" else []) + [["b", "normal"]]:
        other.append(row)
    if what == "sheet":
        other.sheet_state = "hidden"
    else:
        other.row_dimensions[3].hidden = True
    book.save(two / "t.xlsx")
    listing = generic.scan(two)
    assert labels(listing) == {"images/a.jpg": "dr", "images/b.jpg": "normal"}
    told = {
        "sheet": "t.xlsx, sheet 'old': the sheet is hidden in Excel",
        "rows": "t.xlsx: 1 of 2 rows are hidden in Excel",
    }
    [note] = [note for note in listing.guesses if "hidden" in note]
    assert note.startswith(told[what])


def test_the_first_sheet_is_the_first_that_excel_shows(tmp_path):
    book = openpyxl.Workbook()
    book.active.append(["choices"])
    book.active.append(["yes"])
    book.active.sheet_state = "veryHidden"
    book.create_sheet("data").append(["image"])
    book["data"].append(["a.jpg"])
    book.save(tmp_path / "t.xlsx")
    assert tables.read_table(tmp_path / "t.xlsx") == [{"image": "a.jpg"}]


def test_a_formula_that_nobody_has_reckoned_is_a_reject_that_says_so(two):
    place(two, "images/c.jpg", "images/d.jpg")
    book = openpyxl.Workbook()  # which stores no values of formulas
    rows = [("image", "label", "note"), ("a", "=1+1", ""), ("b", "dr", "=A2"), ("=A2", "dr", "")]
    for row in [*rows, ("d", "dr", "=1")]:
        book.active.append(row)
    book.create_sheet("a <&> b").append(("what", "=1"))
    book.save(two / "t.xlsx")
    listing = generic.scan(two)
    assert labels(listing) == {"images/b.jpg": "dr", "images/d.jpg": "dr"}
    assert reasons(listing) == {"formula without a stored value": 2, "missing row": 1}
    assert listing.rejects[0].detail.startswith("t.xlsx, sheet 'Sheet', row 2, 'label': open it")


def test_sheets_may_be_splits(two):
    book = openpyxl.Workbook()
    book.active.title = "Training"
    book.active.append(["image", "label"])
    book.active.append(["a", "dr"])
    other = book.create_sheet("Test")
    other.append(["image", "label"])
    other.append(["b", "normal"])
    book.save(two / "t.xlsx")
    assert splits(generic.scan(two)) == {"images/a.jpg": "train", "images/b.jpg": "test"}


@pytest.mark.parametrize(
    "content",
    [
        [{"image": "a", "label": "normal"}, {"image": "b", "label": "dr"}],
        {"image": ["a", "b"], "label": ["normal", "dr"]},
        {"image": {"0": "a", "1": "b"}, "label": {"0": "normal", "1": "dr"}},
    ],
)
def test_json_may_be_a_list_or_columns(two, content):
    (two / "data.json").write_text(json.dumps(content))
    assert labels(generic.scan(two)) == BOTH


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("d.json", {"images": [{"file_name": "a.jpg"}], "annotations": []}, "COCO"),
        ("d.json", {"a.jpg": "normal", "b.jpg": "dr"}, "not a list of objects but one with"),
        ("d.json", ["a.jpg", "b.jpg"], "entry 1 of the list is not an object"),
        ("t.csv", "images/a.jpg,normal\nimages/b.jpg,dr\n", "names a photograph, not columns"),
        ("labels.txt", "images/a.jpg 0\nimages/b.jpg 1\n", "names a photograph, not columns"),
        ("labels.txt", "a 0\nb 1\n", "names a photograph, not columns"),
        ("t.csv", "image,label,label\na,1,1\n", "occurs twice: rename or remove one"),
        ("t.csv", "", "the table is empty"),
        ("t.csv", "what,why\nx,y\n", "expected the column 'image'"),
        ("t.csv", "image,N,D\na,1,0\nb,0,5\n", "flags, such as 1 and 0, are 'N': name them with"),
        ("t.ods", "", "save it as .csv"),
        ("t.xlsx", "no", "not an Excel file"),
    ],
)
def test_a_table_is_refused_and_never_passed_over_for_folders(two, name, content, message):
    place(two, "other/c.jpg")
    text = content if isinstance(content, str) else json.dumps(content)
    (two / name).write_text(text)
    with pytest.raises(ValueError, match=name.replace(".", r"\.")) as caught:
        generic.scan(two)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_one_table_that_cannot_be_read_is_not_passed_over_for_another(two):
    (two / "train.csv").write_text("image,label\na,dr\n")
    (two / "test.csv").write_text("Bild,label\nb.jpg,dr\n")
    with pytest.raises(ValueError, match=r"test\.csv: no column"):
        generic.scan(two)


def test_texts_that_list_no_photographs_are_no_tables(tmp_path):
    place(tmp_path, "dr/a.jpg", "normal/b.jpg")
    (tmp_path / "README.txt").write_text("Photographs of a study.\nSee dr/a.jpg\n")
    (tmp_path / "classes.txt").write_text("dr\nnormal\n")
    (tmp_path / "config.json").write_text('{"size": 3}')
    (tmp_path / "dr/a.txt").write_text("Eine Netzhaut")
    listing = generic.scan(tmp_path)
    assert labels(listing) == {"dr/a.jpg": "dr", "normal/b.jpg": "normal"}
    assert any("1 .txt named after photographs" in note for note in listing.guesses)


def test_tables_below_the_folder_are_found(tmp_path):
    for split in ("train", "test"):
        place(tmp_path, f"data/{split}/1.jpg")
        (tmp_path / f"data/{split}/metadata.csv").write_text("file_name,text\n1.jpg,眼底\n")
    listing = generic.scan(tmp_path)
    assert splits(listing) == {"data/train/1.jpg": "train", "data/test/1.jpg": "test"}


def test_eval_beside_test_is_refused(two):
    for table in ("image,label,split\na,dr,eval\nb,dr,test\n", "image,label,split\na,dr,eval\n"):
        (two / "t.csv").write_text(table)
        if "test" in table:
            with pytest.raises(ValueError, match=r"t\.csv: is 'eval' for validation"):
                generic.scan(two)
    assert splits(generic.scan(two)) == {"images/a.jpg": "test"}
    (two / "t.csv").rename(two / "eval.csv")
    (two / "test.csv").write_text("image,label\nb,dr\n")
    with pytest.raises(ValueError, match="is 'eval' for validation"):
        generic.scan(two)


def test_folders_of_splits_count_where_the_table_is_silent(tmp_path):
    place(tmp_path, "Training Set/1.jpg", "Testing Set/2.jpg", "3.jpg")
    (tmp_path / "t.csv").write_text("image,label\n1,dr\n2,dr\n3,dr\n")
    listing = generic.scan(tmp_path)
    assert splits(listing) == {"Training Set/1.jpg": "train", "Testing Set/2.jpg": "test"}
    assert reasons(listing) == {"no split": 1}


def test_a_lone_table_is_of_the_split_that_it_is_named_after(two):
    (two / "test.csv").write_text("image,label\na,dr\nb,normal\n")
    listing = generic.scan(two)
    assert set(splits(listing).values()) == {"test"}
    assert "test.csv: belongs to the split test, by its name." in listing.guesses


def test_labels_of_two_spellings_of_numbers_are_one_class(two):
    place(two, "c.jpg", "d.jpg", "e.jpg", "f.jpg", "g.jpg")
    (two / "train.csv").write_text("image,label\na,2.0\nb,-1.0\nc,nan\nf,-inf\n")
    (two / "test.jsonl").write_text(
        '{"image": "d", "label": 2}\n{"image": "e.jpg", "label": NaN}\n'
        '{"image": "g", "label": Infinity}\n'
    )
    listing = generic.scan(two)
    assert listing.classes == ("2",)
    assert set(labels(listing)) == {"images/a.jpg", "d.jpg"}
    assert reasons(listing) == {"no label": 5}


def test_classes_that_differ_by_case_alone_are_refused_merged_or_kept(tmp_path):
    place(
        tmp_path,
        "train/Glaucoma/1.jpg",
        "train/Glaucoma/2.jpg",
        "test/glaucoma /3.jpg",
        "test/dr/4.jpg",
    )
    with pytest.raises(
        ValueError, match=r"'Glaucoma' .* and 'glaucoma' .* differ by .*--spellings merge"
    ):
        generic.scan(tmp_path)
    merged = generic.scan(tmp_path, spellings="merge")
    assert Counter(labels(merged).values()) == {"Glaucoma": 3, "dr": 1}
    told = "Classes of another spelling are counted as one: 'glaucoma' as 'Glaucoma'."
    assert told in merged.notes
    assert generic.scan(tmp_path, spellings="keep").classes == ("Glaucoma", "dr", "glaucoma")


def test_the_order_of_classes_is_the_given_one(two):
    (two / "t.csv").write_text("image,label\na,severe\nb,no DR\n")
    listing = generic.scan(two, classes="no DR, mild,severe", ordered="yes")
    assert listing.classes == ("no DR", "mild", "severe")
    assert listing.ordered
    assert labels(listing) == {"images/a.jpg": "severe", "images/b.jpg": "no DR"}
    with pytest.raises(ValueError, match=r"t\.csv, row 2: the label 'severe' is none of the given"):
        generic.scan(two, classes="no DR,mild")
    with pytest.raises(ValueError, match=r"'mild' twice"):
        generic.scan(two, classes="mild,mild")


def test_names_are_not_ordered_by_the_alphabet(two):
    (two / "t.csv").write_text("image,label\na,severe\nb,no DR\n")
    with pytest.raises(ValueError, match="give the order of grades with --classes"):
        generic.scan(two, ordered="yes")
    (two / "t.csv").write_text("image,label\na,2\nb,10\n")
    assert generic.scan(two, ordered="yes").classes == ("2", "10")


def test_what_is_merged_into_given_classes_is_told(two):
    (two / "t.csv").write_text("image,label\na,No-DR\nb,DR\n")
    listing = generic.scan(two, classes="no DR,dr", spellings="merge")
    assert labels(listing) == {"images/a.jpg": "no DR", "images/b.jpg": "dr"}
    assert "Classes of another spelling are counted as one: 'No-DR' as 'no DR'; 'DR' as 'dr'." in (
        listing.notes
    )


def test_given_classes_name_numbers(two):
    (two / "t.csv").write_text("image,label\na,2\nb,0\n")
    listing = generic.scan(two, classes="no DR,mild,severe")
    assert labels(listing) == {"images/a.jpg": "severe", "images/b.jpg": "no DR"}
    with pytest.raises(ValueError, match=r"row 2: the label '2' is none of the given"):
        generic.scan(two, classes="no DR,mild")


def test_several_labels_are_kept_and_several_captions_rejected(tmp_path):
    rows = [
        {"image": ["0.jpg"], "caption": ["x"], "label": ["dr"]},
        {"image": "1.jpg", "caption": "x", "label": ["dr", "glaucoma"]},
        {"image": "2.jpg", "caption": ["x", "y"], "label": "dr"},
        {"image": "3.jpg", "caption": "x", "label": "dr|glaucoma"},
        {"image": "4.jpg", "caption": "x", "label": "['dr', 'glaucoma']"},
        {"image": "5.jpg", "caption": "x", "label": "0.5"},
    ]
    place(tmp_path, *(f"{index}.jpg" for index in range(len(rows))))
    (tmp_path / "t.jsonl").write_text("\n".join(map(json.dumps, rows)))
    listing = generic.scan(tmp_path)
    assert labels(listing) == {"0.jpg": "dr", "1.jpg": None, "3.jpg": None, "4.jpg": None}
    assert [item.caption for item in listing.items] == ["x"] * 4
    assert tuple(listing.columns) == ("findings/dr", "findings/glaucoma")
    assert [item.values for item in listing.items] == [(1, 0), *[(1, 1)] * 3]
    assert reasons(listing) == {"several captions": 1, "label is not whole": 1}


@pytest.mark.parametrize(
    ("rows", "reason"),
    [
        ("image,label\na,dr\nb,\n", "no label"),
        ("image,caption\na,x\nb,\n", "empty caption"),
        ("image,caption,label\na,x,\nb,,\n", "empty caption"),
        ("image,caption,label\na,x,dr\nb,,?\n", "neither caption nor label"),
        ("image,caption,label\na,,\nb,,\n", "neither caption nor label"),
    ],
)
def test_what_has_no_words_is_rejected_for_what_it_lacks(two, rows, reason):
    (two / "t.csv").write_text(rows)
    assert set(reasons(generic.scan(two))) == {reason}


def test_several_labels_are_counted_and_one_that_is_a_class_can_be_named(tmp_path):
    place(tmp_path, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    (tmp_path / "t.csv").write_text("image;label\na;dr\nb;scar\nc;dr + SCAR\nd;scar/other\n")
    listing = generic.scan(tmp_path)
    assert not listing.rejects
    assert listing.classes == ("dr", "scar", "scar/other")
    assert {i.key: i.values for i in listing.items}["c.jpg"] == (1, 1, -1)
    assert any("1 labels ('dr + SCAR') are several in one cell" in n for n in listing.notes)
    assert any("may be several in one cell, such as 'scar/other'" in n for n in listing.notes)
    named = generic.scan(tmp_path, classes="dr,scar,dr + SCAR,scar/other")
    assert not named.rejects
    assert not named.columns
    assert generic.scan(tmp_path, classes="dr,scar,scar/other").items[2].values == (1, 1, 0)


def test_a_class_of_two_words_that_are_classes_too_is_named_with_the_remedy(tmp_path):
    place(tmp_path, "a.jpg", "b.jpg", "c.jpg", "d.jpg")
    text = "image,label\na,severe\nb,npdr\nc,severe npdr\nd,\"['severe', 'npdr']\"\n"
    (tmp_path / "t.csv").write_text(text)
    listing = generic.scan(tmp_path)
    assert {i.key: i.values for i in listing.items}["c.jpg"] == (1, 1)
    (note,) = [note for note in listing.notes if "several in one cell" in note]
    assert "'severe npdr'" in note
    assert "List a label that is a single class in --classes." in note
    for classes in ("npdr,severe,severe npdr", "npdr,severe,Severe NPDR"):
        merged = generic.scan(tmp_path, classes=classes, spellings="merge")
        assert labels(merged)["c.jpg"] == classes.rpartition(",")[2]
        assert labels(merged)["d.jpg"] is None
        assert {i.key: i.values for i in merged.items}["d.jpg"] == (1, 1, 0)


def test_rows_that_contradict_each_other_are_all_rejected(two):
    (two / "t.csv").write_text("image,label\na,dr\na,normal\nb,dr\nb,dr\n")
    listing = generic.scan(two)
    assert labels(listing) == {"images/b.jpg": "dr"}
    assert reasons(listing) == {"conflicting labels": 2, "duplicate row": 1}
    assert listing.rejects[0].detail == "t.csv, row 2: 'dr', 'normal'"


@pytest.mark.parametrize(
    ("folders", "rows", "count"),
    [
        (("glaucoma", "normal", "glaucoma"), ("normal", "normal", "glaucoma"), 1),
        (("Glaucoma", "normal", "x"), ("glaucoma", "normal", "normal"), 0),
        (("normal", "glaucoma", "glaucoma"), ("glaucoma", "normal", "normal"), 3),
        (("0", "1", "1"), ("0", "1", "0"), 1),
        (("0", "1", "2"), ("2", "0", "1"), 0),  # numbers of patients
    ],
)
def test_a_table_against_the_folders_of_classes_is_told(tmp_path, folders, rows, count):
    keys = [f"{folder}/{index}.jpg" for index, folder in enumerate(folders)]
    place(tmp_path, *keys)
    lines = [f"{key},{label}\n" for key, label in zip(keys, rows, strict=True)]
    (tmp_path / "t.csv").write_text("".join(["image,label\n", *lines]))
    listing = generic.scan(tmp_path)
    assert list(labels(listing).values()) == list(rows)
    told = [note for note in listing.notes if "are in the folder of another class" in note]
    assert [int(note.split()[0]) for note in told] == ([count] if count else [])
    if count:
        assert any(key in told[0] for key in keys)
        assert "t.csv, row" in told[0]


def test_a_photograph_in_two_splits_is_rejected(two):
    (two / "train.csv").write_text("image,label\na,dr\nb,dr\n")
    (two / "test.csv").write_text("image,label\na,dr\n")
    assert reasons(generic.scan(two)) == {"conflicting splits": 2}


def test_tables_that_complete_each_other_are_joined(two):
    (two / "captions.csv").write_text("image,caption\na,x\nb,y\n")
    (two / "labels.csv").write_text("image,label\na,normal\nb,dr\n")
    listing = generic.scan(two)
    assert labels(listing) == BOTH
    assert [item.caption for item in listing.items] == ["x", "y"]
    assert not listing.rejects


def test_a_table_named_itself_needs_no_look_elsewhere(two):
    place(two, "other/c.jpg", "images/d.jpg")
    (two / "broken.csv").write_text("")
    (two / "t.csv").write_text("image,label\nimages/a.jpg,normal\nb,dr\n")
    listing = generic.scan(two / "t.csv")
    assert labels(listing) == BOTH
    assert [reject.key for reject in listing.rejects] == ["images/d.jpg"]


def shard(path, rows, names=None, label="label"):
    image = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
    feature = {"names": names, "_type": "ClassLabel"}
    note = {"huggingface": json.dumps({"info": {"features": {label: feature}}})} if names else None
    columns = {
        "image": pyarrow.array([{"bytes": b"x", "path": None} for _ in rows], image),
        label: pyarrow.array(rows),
    }
    table = pyarrow.table(columns).replace_schema_metadata(note)
    path.parent.mkdir(parents=True, exist_ok=True)
    pyarrow.parquet.write_table(table, path)


def test_each_shard_numbers_its_classes_itself(tmp_path):
    shard(tmp_path / "train.parquet", [0, 1, 1], ["normal", "glaucoma"])
    shard(tmp_path / "test.parquet", [0, 1, 1], ["glaucoma", "normal"])
    listing = generic.scan(tmp_path)
    found = Counter((item.split, listing.classes[item.label]) for item in listing.items)
    assert found == {
        ("train", "normal"): 1,
        ("train", "glaucoma"): 2,
        ("test", "glaucoma"): 1,
        ("test", "normal"): 2,
    }


@pytest.mark.parametrize(
    ("rows", "classes", "numbers"),
    [
        ([0.0, float("nan"), 1.0], None, [0, -1, 1]),
        ([[0], [1], None], None, [0, 1, -1]),
        ([0, 1, -1], ["normal", "dr"], [0, 1, -1]),
        ([1, None, 0], ["normal", "dr"], [1, -1, 0]),
        ([[1], [], [0]], ["normal", "dr"], [1, -1, 0]),
    ],
)
@pytest.mark.parametrize("label", ["label", "labels"])
def test_labels_of_shards_are_what_they_say(tmp_path, rows, classes, numbers, label):
    shard(tmp_path / "a.parquet", rows, classes, label)
    listing = generic.scan(tmp_path)
    expected = {f"a/{i}": number for i, number in enumerate(numbers) if number >= 0}
    assert {item.key: item.label for item in listing.items} == expected
    assert listing.classes == tuple(classes or ("0", "1"))
    assert reasons(listing) == {"no label": 1}


def test_numbers_without_names_are_not_mixed_with_names(tmp_path):
    shard(tmp_path / "a.parquet", [0, 1], ["normal", "dr"])
    shard(tmp_path / "b.parquet", [0, 1])
    with pytest.raises(ValueError, match=r"b\.parquet: the labels are numbers"):
        generic.scan(tmp_path)
    shard(tmp_path / "b.parquet", ["dr", "amd"])
    assert generic.scan(tmp_path).classes == ("normal", "dr", "amd")


@pytest.mark.parametrize("names", [None, ["scar", "dr"]])
def test_several_labels_of_a_shard_are_findings(tmp_path, names):
    shard(tmp_path / "a.parquet", [[0], [0, 1], [1], [1, 1]], names)
    listing = generic.scan(tmp_path)
    assert [item.label for item in listing.items] == [0, -1, 1]
    assert [item.values for item in listing.items] == [(1, 0), (1, 1), (0, 1)]
    assert tuple(listing.columns) == tuple(f"findings/{name}" for name in names or "01")
    assert reasons(listing) == {"a number twice among the labels": 1}


def test_a_number_without_a_name_is_refused_with_its_row(tmp_path):
    shard(tmp_path / "a.parquet", [0, 9], ["normal", "dr"])
    with pytest.raises(ValueError, match=r"a\.parquet, row 2: the label is 9, .* names 2 classes"):
        generic.scan(tmp_path)


def test_an_ordered_category_keeps_its_order(two):
    kind = pyarrow.dictionary(pyarrow.int8(), pyarrow.string(), ordered=True)
    grades = pyarrow.DictionaryArray.from_arrays([1, 0], ["none", "mild"], ordered=True)
    table = pyarrow.table({"image": ["a", "b"], "label": grades.cast(kind)})
    pyarrow.parquet.write_table(table, two / "t.parquet")
    listing = generic.scan(two)
    assert listing.classes == ("none", "mild")
    assert listing.ordered
    assert labels(listing) == {"images/a.jpg": "mild", "images/b.jpg": "none"}


def test_names_that_macos_writes_in_parts_are_found(tmp_path):
    place(tmp_path, unicodedata.normalize("NFD", "images/œil é.jpg"), "images/1.jpg")
    (tmp_path / "t.csv").write_text("image,label\nimages/œil é.jpg,dr\n001,amd\n", "utf-8")
    assert Counter(labels(generic.scan(tmp_path)).values()) == {"dr": 1, "amd": 1}


@pytest.mark.parametrize(
    "name", ["t.csv", "t.tsv", "t.jsonl", "t.json", "t.txt", "t.parquet", "t.xlsx"]
)
@settings(max_examples=25, suppress_health_check=[HealthCheck.too_slow])
@given(st.binary(max_size=60), st.sampled_from((b"", b"image,label\n", b'[{"image": ', b"PK\3\4")))
def test_any_bytes_are_a_listing_or_an_error_of_one_line(tmp_path_factory, name, content, start):
    folder = tmp_path_factory.mktemp("bytes")
    place(folder, "dr/a.jpg", "amd/b.jpg")
    (folder / name).write_bytes(start + content)
    listing, text = None, ""
    try:
        listing = generic.scan(folder)
    except ValueError as error:
        text = str(error)
    assert "\n" not in text
    if listing is None:
        return
    accounted = {item.key for item in listing.items} | {reject.key for reject in listing.rejects}
    assert accounted >= {"dr/a.jpg", "amd/b.jpg"}


# --- Any table.

NAMES = st.text(
    st.characters(categories=("L", "N"), include_characters=" _-.,;()'"), min_size=1, max_size=8
)
CHARACTERS = st.characters(exclude_categories=("C",), include_characters="\n")
TEXTS = (
    st.text(CHARACTERS, max_size=20).map(str.strip).filter(lambda text: text[:1] not in ("=", "["))
)
"""What starts with "=" is a formula where Excel files are written, "[" may start a list."""
ROWS = st.lists(
    st.tuples(
        NAMES.map(str.strip).filter(lambda name: name.strip(".")),
        TEXTS,
        st.sampled_from((*KINDS, "")),
    ),
    min_size=1,
    max_size=6,
    unique_by=lambda row: row[0].casefold(),
)


def write_csv(path, rows, delimiter=",", encoding="utf-8"):
    with open(path, "w", newline="", encoding=encoding) as file:
        csv.writer(file, delimiter=delimiter).writerows(rows)


def write_excel(path, rows):
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.save(path)


def write_json(path, rows):
    objects = [dict(zip(rows[0], row, strict=True)) for row in rows[1:]]
    text = json.dumps(objects) if path.suffix == ".json" else "\n".join(map(json.dumps, objects))
    path.write_text(text)


def write_parquet(path, rows):
    columns = dict(zip(rows[0], map(list, zip(*rows[1:], strict=True)), strict=True))
    pyarrow.parquet.write_table(pyarrow.table(columns), path)


WRITERS = {
    "t.csv": write_csv,
    "semicolons.csv": lambda path, rows: write_csv(path, rows, ";"),
    "t.tsv": lambda path, rows: write_csv(path, rows, "\t"),
    "utf16.csv": lambda path, rows: write_csv(path, rows, encoding="utf-16"),
    "bom.csv": lambda path, rows: write_csv(path, rows, encoding="utf-8-sig"),
    "t.xlsx": write_excel,
    "t.json": write_json,
    "t.jsonl": write_json,
    "t.parquet": write_parquet,
}


@pytest.mark.parametrize("name", WRITERS)
@settings(max_examples=15, suppress_health_check=[HealthCheck.too_slow])
@given(ROWS)
def test_any_table_is_read_as_it_was_written(tmp_path_factory, name, rows):
    folder = tmp_path_factory.mktemp("any")
    place(folder, *(f"images/{key}.jpg" for key, _, _ in rows))
    table = [("image", "caption", "label")]
    table += [(f"images/{key}.jpg", caption, label) for key, caption, label in rows]
    WRITERS[name](folder / name, table)
    listing = generic.scan(folder)
    expected = {
        f"images/{key}.jpg": (caption or label, label or None)
        for key, caption, label in rows
        if caption or label
    }
    assert {i.key: (i.caption, labels(listing)[i.key]) for i in listing.items} == expected
    assert {one.key for one in listing.rejects} == {
        f"images/{k}.jpg" for k, c, n in rows if not c + n
    }


def test_a_label_of_a_page_is_a_reject_with_its_row(two):
    (two / "t.csv").write_text(f"image,label\na.jpg,{'x' * 2000}\nb.jpg,dr\n")
    listing = generic.scan(two)
    assert reasons(listing) == {"label too long": 1}
    assert listing.classes == ("dr",)


@pytest.mark.parametrize("column", ["Patient ID", "患者编号"])
def test_a_column_of_persons_is_said_and_the_splits_follow_it(two, column):
    (two / "t.csv").write_text(f"image,label,{column}\na.jpg,dr,1\nb.jpg,normal,1\n", "utf-8")
    listing = generic.scan(two)
    assert f"Patients are those of the column {column!r}." in listing.notes
    assert any("by a hash of the patient" in note for note in listing.notes)
    assert len({item.split for item in listing.items}) == 1


def people(count):
    """The photographs of both eyes of so many people, in a split each."""
    return [(f"{n}_{eye}", n, split) for n in range(count) for eye, split in EYES]


EYES = (("left", "train"), ("right", "test"))


@pytest.mark.parametrize("column", ["patient_id", "病历号", "MRN"])
def test_persons_in_two_splits_are_counted_and_not_named(tmp_path, column):
    place(tmp_path, *(f"{name}.jpg" for name, _, _ in people(3)))
    rows = [f"{name},dr,{n}.0,{split}" for name, n, split in people(3)]
    rows += ["2_left,dr,2,train"]  # a repeated row changes nothing
    text = "\n".join([f"image,label,{column},split", *rows])
    (tmp_path / "t.csv").write_text(text, "utf-8")
    listing = generic.scan(tmp_path, classes="dr")
    counts = {"known": 3, "photographs": 6, "in_several_splits": 3}
    assert data_card.patients(listing, listing.items) == counts
    hidden = anonymous(listing, b"secret")
    assert data_card.patients(hidden, hidden.items) == counts
    (tmp_path / "t.csv").write_text(text.replace("test", "train"), "utf-8")
    listing = generic.scan(tmp_path, classes="dr")
    assert data_card.patients(listing, listing.items) == counts | {"in_several_splits": 0}


def test_persons_of_a_table_a_split_are_counted_and_their_ages_are_not(two):
    (two / "train.csv").write_text("image,label,Patient Age,Patient\na,dr,60,1\n")
    (two / "test.csv").write_text("image,label,Patient Age,Patient\nb,dr,60,2\n")
    listing = generic.scan(two)
    assert data_card.patients(listing, listing.items)["in_several_splits"] == 0
    (two / "test.csv").write_text("image,label,Patient Age,Patient\nb,dr,60,1\n")
    listing = generic.scan(two)
    counts = {"known": 1, "photographs": 2, "in_several_splits": 1}
    assert data_card.patients(listing, listing.items) == counts


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("train/dr/7_left.jpg", "test/normal/7_right.jpg"),
        ("train/dr/P7_OD.jpg", "test/dr/P7_OS.jpg"),
        ("train/dr/7/l.jpg", "test/dr/7/r.jpg"),
        ("训练/dr/张三左眼.jpg", "测试/dr/张三右眼.jpg"),
    ],
)
def test_names_that_differ_by_left_and_right_in_two_splits_are_counted(tmp_path, one, other):
    split, *_ = one.split("/")
    place(tmp_path, one, other, f"{split}/dr/8/l.jpg", f"{split}/dr/8/r.jpg", f"{split}/x/1.jpg")
    (warning,) = generic.scan(tmp_path).warnings
    assert warning.startswith("1 of 2 groups of photographs whose names differ by left and right")


def test_names_alike_in_the_folders_of_two_persons_are_no_pair(tmp_path):
    place(tmp_path, *(f"{s}/{c}{s}/left.jpg" for s in ("train", "test") for c in "ab"))
    place(tmp_path, "train/atrain/right.jpg")
    assert not generic.scan(tmp_path).warnings


def test_the_persons_of_parquet_are_counted(tmp_path):
    for split in ("train", "test"):
        table = pyarrow.table(
            {
                "image": [{"bytes": b"\xff\xd8\xff", "path": f"{split}.jpg"}],
                "label": ["dr"],
                "subject_id": [1],
            }
        )
        pyarrow.parquet.write_table(table, tmp_path / f"{split}.parquet")
    listing = generic.scan(tmp_path)
    assert data_card.patients(listing, listing.items)["in_several_splits"] == 1


def test_a_column_of_splits_that_has_another_value_is_followed(tmp_path):
    place(tmp_path, *(f"{n}.jpg" for n in range(3)))
    (tmp_path / "t.csv").write_text("image,label,set\n0,dr,Train\n1,normal,Test\n2,dr,External\n")
    listing = generic.scan(tmp_path)
    assert splits(listing) == {"0.jpg": "train", "1.jpg": "test"}
    assert reasons(listing) == {"unknown split": 1}
    text = "image,label,set\n0,dr,DRIVE\n1,normal,STARE\n2,dr,IDRiD test\n"
    (tmp_path / "t.csv").write_text(text)
    assert any("not read: 'set'" in note for note in generic.scan(tmp_path).guesses)


def test_splits_that_some_photographs_lack_are_counted(tmp_path):
    place(tmp_path, *(f"{n}.jpg" for n in range(3)))
    (tmp_path / "t.csv").write_text("image,label,split\n0,dr,train\n1,normal,test\n2,dr,\n")
    (warning,) = generic.scan(tmp_path).warnings
    assert warning.startswith("1 of 3 photographs have no split of their own")
    (tmp_path / "t.csv").write_text("image,label\n0,dr\n1,normal\n2,dr\n")
    assert not generic.scan(tmp_path).warnings


def test_a_column_without_a_value_is_said(two):
    (two / "t.csv").write_text("image,label,caption\na,,one\nb,,two\n")
    listing = generic.scan(two)
    assert any("the column 'label' is empty in every row" in note for note in listing.guesses)


@pytest.mark.parametrize("first", [0, 1])
def test_numbers_of_given_classes_that_may_count_from_one_are_said(two, first):
    (two / "t.csv").write_text(f"image,label\na,{first}\nb,2\n")
    notes = generic.scan(two, classes="none,mild,severe").notes
    assert any("no label is 0: do yours count from 1?" in note for note in notes) == bool(first)


def test_a_list_in_an_object_is_read_and_another_form_is_refused(two):
    rows = [{"image": "a", "label": "dr"}, {"image": "b", "label": "normal"}]
    (two / "t.json").write_text(json.dumps({"data": rows, "version": 1}))
    assert labels(generic.scan(two)) == {"images/a.jpg": "dr", "images/b.jpg": "normal"}
    (two / "t.json").write_text(json.dumps({"a": "dr", "b": "normal"}))
    with pytest.raises(ValueError, match=r"t\.json"):
        generic.scan(two)


@pytest.mark.parametrize("word", ["待定", "未知", "待查", "Unknown", "ungradable", "N/A"])
def test_words_for_no_class_are_none_unless_they_are_named(two, word):
    place(two, "images/c.jpg")
    (two / "t.csv").write_text(f"image,label\na,dr\nb,amd\nc,{word}\n")
    listing = generic.scan(two)
    assert listing.classes == ("amd", "dr")
    (reject,) = listing.rejects
    assert reject.reason == ("no label" if word == "N/A" else f"no label ({word})")
    assert any(f"1 labels ({word!r}) are taken for no class" in note for note in listing.notes)
    for name in (word, word.upper()):
        kept = generic.scan(two, classes=f"amd,dr,{name}", spellings="merge")
        assert labels(kept)["images/c.jpg"] == name


def test_folders_of_words_for_no_class_are_noted(tmp_path):
    place(tmp_path, "dr/1.jpg", "amd/2.jpg", "ungradable/3.jpg")
    notes = generic.scan(tmp_path).notes
    assert any("'ungradable' is a class of 1 photographs" in note for note in notes)
    kept = generic.scan(tmp_path, classes="dr,amd,ungradable").notes
    assert not any("'ungradable'" in note and "move" in note for note in kept)


def test_names_below_titles_are_found_where_none_is_known(two):
    rows = [["眼底筛查 2024"], [], ["Bild", "Befund", "x"], ["a.jpg", "dr", 1], ["b.jpg", "amd", 2]]
    book = openpyxl.Workbook()
    for row in rows:
        book.active.append(row)
    book.active.merge_cells("A1:C1")
    book.save(two / "t.xlsx")
    with pytest.raises(ValueError, match=r"only 'Bild', 'Befund', 'x': name it with --image-c"):
        generic.scan(two)
    options = {"image_column": "Bild", "label_column": "Befund"}
    assert set(labels(generic.scan(two, **options)).values()) == {"dr", "amd"}
    (two / "t.xlsx").unlink()
    for mark in ",;\t":
        lines = [mark.join(map(str, row)) for row in rows]
        (two / "t.csv").write_text("\n".join(lines))
        with pytest.raises(ValueError, match=r"only 'Bild', 'Befund', 'x': name it"):
            generic.scan(two)


def test_a_row_taken_for_names_below_a_title_is_noted(two):
    (two / "t.csv").write_text("Screening 2024\nid,label\na,dr\nb,amd\n")
    listing = generic.scan(two)
    assert labels(listing) == {"images/a.jpg": "dr", "images/b.jpg": "amd"}
    note = "t.csv: row 2 is taken for the columns' names, below 'Screening 2024'."
    assert note in listing.guesses


@pytest.mark.parametrize("name", ["image", "影像编号", "id"])
def test_ids_whose_digits_excel_has_lost_are_rejected(tmp_path, name):
    place(tmp_path, "1234567890123456789.jpg", "1234567890123456768.jpg", "123456789012345.jpg")
    book = openpyxl.Workbook()
    cells = (1234567890123456789, "1234567890123456789", 123456789012345)
    for row in ((name, "label"), *((cell, "dr") for cell in cells)):
        book.active.append(row)
    book.save(tmp_path / "t.xlsx")
    listing = generic.scan(tmp_path)
    assert set(labels(listing)) == {"1234567890123456789.jpg", "123456789012345.jpg"}
    (lost,) = [one for one in listing.rejects if "digits" in one.reason]
    assert lost.key == "t.xlsx, row 2"
    assert "format the column as text" in lost.detail


@pytest.mark.parametrize("cell", ["1.23457E+17", "1,23E+17", "1E+12"])
@pytest.mark.parametrize("name", ["id", "image", "编号"])
def test_ids_that_excel_has_shortened_in_csv_are_rejected_with_the_reason(tmp_path, cell, name):
    place(tmp_path, "123456789012345678.jpg", "a.jpg")
    (tmp_path / "t.csv").write_text(f"{name};label;MRN\n{cell};dr;{cell}\na;amd;1.5E+10\n")
    listing = generic.scan(tmp_path)
    assert labels(listing) == {"a.jpg": "amd"}
    assert reasons(listing) == {"number that has lost digits": 1, "missing row": 1}
    (lost,) = [one for one in listing.rejects if "digits" in one.reason]
    assert "Excel keeps 15 digits" in lost.detail
    assert any("1 cells of 'MRN' are numbers that have lost" in n for n in listing.guesses)


def test_persons_whose_digits_excel_has_lost_are_nobody(two):
    book = openpyxl.Workbook()
    for row in (("image", "label", "患者编号"), ("a", "dr", 10**17 + 1), ("b", "amd", 10**17 + 2)):
        book.active.append(row)
    book.save(two / "t.xlsx")
    listing = generic.scan(two)
    assert len(listing.items) == 2
    assert any("2 cells of '患者编号' are numbers that have lost" in n for n in listing.guesses)


@pytest.mark.parametrize(
    "start", ["../input/x", "/kaggle/input/x", "C:\\data\\x", "../../x/images"]
)
def test_paths_outside_the_folder_are_matched_by_their_end_where_one_fits(two, start):
    place(two, "more/d.jpg", "more/e/d.jpg")
    cells = [f"{start}/1/a.jpg", f"{start}/2/b.jpg", f"{start}/3/gone.jpg", f"{start}/4/d.jpg"]
    (two / "t.csv").write_text("image,label\n" + "".join(f"{cell},dr\n" for cell in cells))
    listing = generic.scan(two)
    assert set(labels(listing)) == {"images/a.jpg", "images/b.jpg"}
    assert len(listing.rejects) == 4  # and two photographs that no row names
    assert any("t.csv: 2 rows name paths outside the folder" in note for note in listing.guesses)


def test_a_path_outside_is_no_photograph_of_another_split_eye_or_row(tmp_path):
    place(tmp_path, "train/1.jpg", "left/2.jpg", "3.jpg")
    cells = ["../test/1.jpg", "../x/right/2.jpg", "../normal/3.jpg", "../glaucoma/3.jpg"]
    (tmp_path / "t.csv").write_text("image,label\n" + "".join(f"{cell},dr\n" for cell in cells))
    listing = generic.scan(tmp_path)
    assert not listing.items
    found = reasons(listing)
    assert (found["outside the folder"], found["ambiguous image"]) == (2, 2)


def test_of_two_columns_of_photographs_the_one_whose_files_are_there_is_taken(two):
    (two / "t.csv").write_text(
        "filepath,filename,label\n../x/1.jpg,a.jpg,dr\n../x/2.jpg,b.jpg,amd\n"
    )
    listing = generic.scan(two)
    assert labels(listing) == {"images/a.jpg": "dr", "images/b.jpg": "amd"}
    assert any("'filename' names 2 in the first 2 rows and is taken" in n for n in listing.guesses)


@pytest.mark.parametrize("start", ["/data/study", "..", "../x"])
def test_a_photograph_that_is_not_there_is_not_taken_for_its_namesake(tmp_path, start):
    place(tmp_path, "p1/eye.jpg", "p3/b.jpg")
    rows = f"{start}/p2/eye.jpg,amd\n{start}/p3/b.jpg,dr\n"
    (tmp_path / "t.csv").write_text(f"image,label\np1/eye.jpg,normal\n{rows}")
    listing = generic.scan(tmp_path)
    assert labels(listing) == {"p1/eye.jpg": "normal", "p3/b.jpg": "dr"}
    assert len(listing.rejects) == 1


def test_of_many_columns_and_sheets_errors_name_a_few(two):
    many = [f"column{number}" for number in range(5000)]
    for header in (["Bild", *many], ["image", *many]):
        (two / "t.csv").write_text(",".join(header) + "\na.jpg" + ",x" * len(many) + "\n")
        with pytest.raises(ValueError, match=r"'column1', .* and \d,\d+ more") as caught:
            generic.scan(two)
        assert len(str(caught.value)) < 1000


@pytest.mark.parametrize(
    ("folders", "said"),
    [
        (["dr", "dr", "dr", "amd"], "folders, 'dr' (3), 'amd' (1), which are not read"),
        (["train/dr", "train/amd", "test/dr", "test/amd"], "'dr' (2), 'amd' (2)"),
        (["train", "train", "test", "test"], ""),
        (["OD", "OS", "OD", "OS"], ""),
        (["p1", "p2", "p3", "p4"], ""),
        (["images"] * 4, ""),
    ],
)
def test_folders_of_classes_that_captions_alone_leave_out_are_said(tmp_path, folders, said):
    keys = [f"{folder}/{number}.jpg" for number, folder in enumerate(folders)]
    place(tmp_path, *keys)
    (tmp_path / "t.csv").write_text("\n".join(["image,caption", *(f"{key},text" for key in keys)]))
    listing = generic.scan(tmp_path)
    assert set(labels(listing).values()) == {None}
    notes = [note for note in listing.notes if "not read as classes" in note]
    assert len(notes) == bool(said)
    assert said in " ".join(notes)
    (tmp_path / "t.csv").write_text("image,caption,label\n" + "".join(f"{k},t,x\n" for k in keys))
    assert not any("not read as classes" in note for note in generic.scan(tmp_path).notes)


# --- Layouts of Kaggle.


GRADES = ["No_DR", "Mild", "Moderate", "Severe", "Proliferate_DR"]


def test_numbers_in_folders_of_their_own_are_read_and_can_be_named(tmp_path):
    """APTOS 2019 as colored_images."""
    inner = "colored_images/colored_images"
    place(tmp_path, *(f"{inner}/{GRADES[n % 5]}/{n}.png" for n in range(10)))
    rows = [f"{n},{n % 5}" for n in range(10)]
    (tmp_path / "train.csv").write_text("\n".join(["id_code,diagnosis", *rows]))
    listing = generic.scan(tmp_path)
    assert listing.classes == ("0", "1", "2", "3", "4")
    assert len(listing.items) == 10
    (note,) = [note for note in listing.notes if "--classes" in note]
    assert f"--classes {','.join(GRADES)} names" in note
    named = generic.scan(tmp_path, classes=",".join(GRADES), ordered="yes")
    assert all(f"/{name}/" in key for key, name in labels(named).items())
    assert not any("--classes" in note for note in named.notes)


@pytest.mark.parametrize(
    "rows",
    [
        ["a/1,0", "b/2,0", "c/3,1"],  # a number in two folders
        ["a/1,0", "a/2,1", "b/3,1"],  # two in one
        ["a/1,1", "b/2,2"],  # none is 0
        ["1/1,0", "2/2,1"],
        ["train/1,0", "test/2,1"],
        ["a/1,0", "a/2,0"],
    ],
)
def test_other_folders_are_no_names_of_classes(tmp_path, rows):
    place(tmp_path, *(f"{row.split(',')[0]}.jpg" for row in rows))
    (tmp_path / "t.csv").write_text("\n".join(["image,label", *rows]))
    listing = generic.scan(tmp_path)
    assert len(listing.items) == len(rows)
    assert not any("--classes" in note for note in listing.notes)


def test_a_name_of_a_folder_with_a_comma_can_be_given_back(tmp_path):
    place(tmp_path, "DR, mild/1.jpg", "none/2.jpg")
    (tmp_path / "t.csv").write_text("image,label\n1,0\n2,1\n")
    (note,) = [note for note in generic.scan(tmp_path).notes if "--classes" in note]
    assert """--classes '"DR, mild",none' names""" in note
    assert generic.scan(tmp_path, classes='"DR, mild",none').classes == ("DR, mild", "none")


def test_idrid_with_one_table_is_read(tmp_path):
    place(tmp_path, "Imagenes/Imagenes/IDRiD_001.jpg", "Imagenes/Imagenes/IDRiD_002.jpg")
    (tmp_path / "idrid_labels.csv").write_text("id_code,diagnosis\nIDRiD_001,3\nIDRiD_002,0\n")
    found = labels(generic.scan(tmp_path))
    assert found == {
        "Imagenes/Imagenes/IDRiD_001.jpg": "3",
        "Imagenes/Imagenes/IDRiD_002.jpg": "0",
    }


def test_rows_of_json_may_be_numbered(tmp_path):
    """REFUGE's index.json; the outlines beside are photographs that nothing lists."""
    for split, first in (("train", "g"), ("val", "V")):
        place(tmp_path, *(f"{split}/Images/{first}000{i}.jpg" for i in range(2)))
        place(tmp_path, *(f"{split}/Masks/{first}000{i}.png" for i in range(2)))
        rows = {
            str(i): {"Fovea_X": 1.5, "ImgName": f"{first}000{i}.jpg", "Label": i} for i in range(2)
        }
        (tmp_path / split / "index.json").write_text(json.dumps(rows))
    listing = generic.scan(tmp_path)
    assert labels(listing) == {
        f"{split}/Images/{first}000{i}.jpg": str(i)
        for split, first in (("train", "g"), ("val", "V"))
        for i in range(2)
    }
    assert set(splits(listing).values()) == {"train", "validation"}
    assert reasons(listing) == {"missing row": 4}
