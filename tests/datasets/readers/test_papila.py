import shutil
from collections import Counter

import openpyxl
import pytest

from vclip_jax import prompts
from vclip_jax.datasets.fixtures import papila as fixture
from vclip_jax.datasets.formats import blobs
from vclip_jax.datasets.readers import papila


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("papila")
    fixture.write(folder / "PapilaDB-PAPILA-17f8fa7")
    return folder


@pytest.fixture(scope="module")
def listing(folder):
    return papila.scan(folder)


def test_an_eye_has_its_own_diagnosis(listing):
    assert {item.split for item in listing.items} == {"test"}
    items = {item.key: item for item in listing.items}
    assert len(items) == 20
    assert Counter(item.label for item in listing.items) == {0: 8, 1: 6, 2: 6}
    right, left = items["RET023OD"], items["RET023OS"]
    assert (right.label, left.label) == (1, 2)
    assert any(words in right.caption for words in papila.WORDS[1])
    assert any(words in left.caption for words in papila.WORDS[2])
    assert blobs.read(left.image)[:2] == b"\xff\xd8"


def test_age_sex_and_eye_come_along(listing):
    items = {item.key: item for item in listing.items}
    assert dict(zip(listing.columns, items["RET005OS"].values, strict=True)) == {
        "patient": 5,
        "eye": "left",
        "age": 41,
        "sex": "female",
    }


def test_nothing_is_lost(listing):
    assert {(reject.key, reject.reason) for reject in listing.rejects} == {
        ("RET002OD", "duplicate row"),
        ("RET300OD", "missing image"),
        ("RET301OD", "missing row"),
    }


def test_two_header_rows_do_as_well(folder, listing, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    for table in tmp_path.rglob("*.xlsx"):
        book = openpyxl.load_workbook(table)
        book.active.delete_rows(2)
        book.save(table)
    again = papila.scan(tmp_path)
    assert [(i.key, i.label, i.values) for i in again.items] == [
        (i.key, i.label, i.values) for i in listing.items
    ]


def test_the_prompt_set_has_its_classes():
    assert prompts.load("zh/papila").class_names == papila.CLASSES


def test_a_wrong_layout_says_what_is_missing(folder, tmp_path):
    with pytest.raises(ValueError, match="lacks FundusImages"):
        papila.scan(tmp_path)
    (tmp_path / "FundusImages").mkdir()
    with pytest.raises(ValueError, match=r"lacks ClinicalData/patient_data_od\.xlsx"):
        papila.scan(tmp_path)
    (tmp_path / "ClinicalData").mkdir()
    table = tmp_path / "ClinicalData/patient_data_od.xlsx"
    table.write_bytes(b"nothing")
    with pytest.raises(ValueError, match="not an Excel file"):
        papila.scan(tmp_path)
    book = openpyxl.Workbook()
    book.active.append(("ID", "Age"))
    book.save(table)
    with pytest.raises(ValueError, match="no row starts with a patient's number"):
        papila.scan(tmp_path)
    book.active.append(("#002", 47))
    book.save(table)
    with pytest.raises(ValueError, match="expected the columns Gender, Diagnosis"):
        papila.scan(tmp_path)
