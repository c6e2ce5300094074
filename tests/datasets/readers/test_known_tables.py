"""Datasets whose tables other programs have written again: the listing stays what it was."""

import csv

import openpyxl
import pytest

from vclip_jax.datasets.catalog import DATASETS
from vclip_jax.datasets.formats.tables import read_table
from vclip_jax.datasets.own import pairing

NAMES = ("aptos", "deepdrid", "fives", "idrid", "messidor", "messidor2", "odir", "papila", "refuge")
IDS = ("id_code", "image_id", "Image name", "ImgName", "Left-Fundus", "Right-Fundus")


def decimal(cell):
    """A whole number as a program writes it in whose column a cell is empty."""
    return f"{int(cell)}.0" if str(cell).isdecimal() else cell


def respelt(cell):
    """A name with another suffix, capitals and white space."""
    return f" train/{pairing.stem(str(cell)).upper()}.PNG " if cell else cell


def rewrite(path, change):
    """Change every cell, by its column's name and its text."""
    if path.suffix == ".csv":
        with open(path, newline="", encoding="utf-8-sig") as file:
            header, *lines = csv.reader(file)
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


@pytest.mark.parametrize("name", [n for n in NAMES if n not in ("fives", "papila")])
def test_names_with_suffixes_capitals_and_white_space_change_nothing(tmp_path, name):
    DATASETS[name].fixture(tmp_path)
    before = scanned(name, tmp_path)
    for path in list(tmp_path.rglob("*.*")):
        rewrite(path, lambda column, cell: respelt(cell) if column in IDS else cell)
    assert scanned(name, tmp_path) == before
