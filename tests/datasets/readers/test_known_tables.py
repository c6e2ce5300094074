"""Datasets whose tables other programs have written again: the listing stays what it was."""

import csv
import io

import openpyxl
import pytest

from vclip_jax.datasets.catalog import DATASETS
from vclip_jax.datasets.formats.tables import read_table
from vclip_jax.datasets.listing import IMAGE_SUFFIXES
from vclip_jax.datasets.own.folders import left_out
from vclip_jax.datasets.readers import pairing
from vclip_jax.files.text import decode_text

NAMES = (
    "airogs",
    "aptos",
    "brset",
    "deepdrid",
    "eyepacs",
    "fives",
    "g1020",
    "idrid",
    "mbrset",
    "messidor",
    "messidor2",
    "odir",
    "papila",
    "refuge",
    "rfmid",
    "rfmid2",
)
IDS = (
    "id_code",
    "image_id",
    "Image name",
    "ImgName",
    "Left-Fundus",
    "Right-Fundus",
    "file",
    "challenge_id",
    "image",
    "imageID",
)
NUMBERED = ("fives", "papila", "rfmid", "rfmid2")
"""Datasets whose tables have numbers in place of the images' names."""


def decimal(cell):
    """A whole number as a program writes it in whose column a cell is empty."""
    return f"{int(cell)}.0" if str(cell).isdecimal() else cell


def respelt(cell):
    """A name with another suffix, capitals and white space."""
    return f" train/{pairing.stem(str(cell)).upper()}.PNG " if cell else cell


def rewrite(path, change):
    """Change every cell, by its column's name and its text."""
    if path.suffix == ".csv":
        text = decode_text(path.read_bytes())
        header, *lines = csv.reader(io.StringIO(text, newline=""))
        with open(path, "w", newline="", encoding="utf-8") as file:
            names = [name.strip() for name in header]
            rows = [[change(n, c) for n, c in zip(names, line, strict=False)] for line in lines]
            csv.writer(file).writerows([header, *rows])
    elif path.suffix == ".xls":
        rows = read_table(path)
        with open(path.with_suffix(".csv"), "w", newline="", encoding="utf-8") as file:
            csv.writer(file).writerows(
                [list(rows[0]), *([change(n, c) for n, c in row.items()] for row in rows)]
            )
        path.unlink()
    elif path.suffix == ".xlsx":
        book = openpyxl.load_workbook(path)
        for sheet in book:
            names = [cell.value for cell in sheet[1]]
            for line in sheet.iter_rows(min_row=2):
                for name, cell in zip(names, line, strict=False):
                    cell.value = change(name, cell.value)
        book.save(path)


def image_files_below(folder):
    return (
        path
        for path in folder.rglob("*")
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith(".")
    )


def scanned(name, folder):
    listing = DATASETS[name].scan(folder)
    items = {(i.key.lower(), i.split, i.label, i.values) for i in listing.items}
    return items, sorted((r.key.lower(), r.reason) for r in listing.rejects)


@pytest.mark.parametrize("name", NAMES)
def test_whole_numbers_written_as_decimals_change_nothing(tmp_path, name):
    DATASETS[name].fixture(tmp_path)
    before = scanned(name, tmp_path)
    assert before[0]
    for path in list(tmp_path.rglob("*.*")):
        rewrite(path, lambda _, cell: decimal(cell))
    assert scanned(name, tmp_path) == before


@pytest.mark.parametrize("name", [n for n in NAMES if n not in NUMBERED])
def test_names_with_suffixes_capitals_and_white_space_change_nothing(tmp_path, name):
    DATASETS[name].fixture(tmp_path)
    before = scanned(name, tmp_path)
    for path in list(tmp_path.rglob("*.*")):
        rewrite(path, lambda column, cell: respelt(cell) if column in IDS else cell)
    assert scanned(name, tmp_path) == before


def test_images_that_no_record_has_are_counted(tmp_path):
    DATASETS["aptos"].fixture(tmp_path / "aptos")
    (tmp_path / "aptos/test.csv").unlink()
    count = len(list((tmp_path / "aptos/test_images").iterdir()))
    notes = DATASETS["aptos"].scan(tmp_path / "aptos").notes
    assert any("are in no record" in n and f"{count} in test_images" in n for n in notes)
    DATASETS["odir"].fixture(tmp_path / "odir")
    (tmp_path / "odir/Testing Images").mkdir()
    for name in ("937_left.jpg", "937_right.jpg"):
        (tmp_path / "odir/Testing Images" / name).write_bytes(b"\xff\xd8\xff")
    notes = DATASETS["odir"].scan(tmp_path / "odir").notes
    assert any("are in no record" in n and "2 in Testing Images" in n for n in notes)


@pytest.mark.parametrize(
    ("name", "masks"), [("fives", 16), ("refuge", 14), ("idrid", 1), ("papila", 1), ("g1020", 1)]
)
def test_masks_are_no_photographs_that_were_left_out(tmp_path, name, masks):
    DATASETS[name].fixture(tmp_path)
    listing = DATASETS[name].scan(tmp_path)
    left, said = listing.notes[-2:]
    assert said == f"{masks} images are no photographs, such as masks, and are not read."
    photographs = len(list(image_files_below(tmp_path))) - len(listing.items) - masks
    assert left.startswith(f"{photographs} images below the folder are in no record")


def test_what_is_no_photograph_goes_by_the_path_below_the_folder_in_any_case(tmp_path):
    folder = tmp_path / "masks"
    for path in ("a.jpg", "b.BMP", "Masks/c.png", "x/MASKS/y/d.png"):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(b"\xff\xd8\xff")
    assert left_out(folder, [], ("*.bmp", "*/masks/*")) == [
        "1 images below the folder are in no record, rejected ones among them: 1 in the folder "
        "itself.",
        "3 images are no photographs, such as masks, and are not read.",
    ]


def test_where_every_image_is_in_a_record_nothing_is_said(tmp_path):
    used = [tmp_path / "a.jpg", tmp_path / "real/b.jpg"]
    (tmp_path / "real").mkdir()
    for path in used:
        path.write_bytes(b"\xff\xd8\xff")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    assert left_out(tmp_path, [str(used[0]), str(tmp_path / "link/b.jpg")]) == []
    assert left_out(tmp_path, [str(used[1])]) == [
        "1 images below the folder are in no record, rejected ones among them: 1 in the folder "
        "itself."
    ]
