"""MESSIDOR from a miniature of its bases."""

import shutil
from collections import Counter

import pytest

from vclip_jax import prompts
from vclip_jax.datasets.fixtures import messidor as fixture
from vclip_jax.datasets.fixtures.pictures import save_excel
from vclip_jax.datasets.formats.tables import read_table
from vclip_jax.datasets.readers.messidor import BASES, CLASSES, scan


def reasons(listing):
    return {(reject.key, reject.reason) for reject in listing.rejects}


def test_every_base_is_read_with_grades_risks_and_departments(listing):
    item = next(item for item in listing.items if item.key == "20051008_41001_0400_PP")
    assert (item.split, item.label, item.values) == ("test", 1, (1, "LaTIM - CHU de BREST"))
    assert item.image.path.endswith("Base31/20051008_41001_0400_PP.tif")
    bases = {base for base in BASES for item in listing.items if base in item.image.path}
    assert bases == set(BASES)
    departments = {item.values[1] for item in listing.items}
    assert "Service Ophtalmologie Lariboisière" in departments
    assert len(departments) == 3


def test_classes_are_those_of_the_prompts_and_each_is_there_twice(listing):
    assert prompts.load("zh/messidor").label_names == listing.classes == CLASSES
    assert min(Counter(item.label for item in listing.items)[label] for label in range(4)) >= 2


def test_a_base_is_read_from_its_archive(source, listing):
    blobs = [item.image for item in listing.items if item.image.member]
    assert {blob.path for blob in blobs} == {str(source / f"{fixture.ARCHIVE}.zip")}
    assert {blob.member.split("/")[0] for blob in blobs} == {fixture.ARCHIVE}


def test_what_cannot_be_an_item_is_rejected_with_its_reason(listing):
    assert reasons(listing) == {
        ("20051001_99999_0100_PP", "missing image"),
        ("20051001_11111_0100_PP", "missing row"),
        ("20051001_22222_0100_PP", "invalid label"),
        ("20051005_41000_0200_PP", "duplicate row"),
        ("20051007_41000_0200_PP", "conflicting rows"),
        ("20051008_41000_0400_PP", "duplicate image"),
        ("20051202_55582_0400_PP", "duplicate image"),
        ("20051205_33025_0400_PP", "conflicting duplicate"),
        ("20051202_55626_0400_PP", "conflicting duplicate"),
    }


def test_errata_change_grades_leave_out_duplicates_and_are_noted(listing):
    labels = {item.key: item.label for item in listing.items}
    assert labels["20051020_63045_0100_PP"] == 0
    assert labels["20051020_64007_0100_PP"] == 3
    assert labels["20051020_63936_0100_PP"] == 1
    assert labels["20060523_48477_0100_PP"] == 3
    assert "20051202_54744_0400_PP" in labels
    assert len(listing.notes) == 7
    assert "images below the folder are in no record" in listing.notes[-1]
    assert listing.notes[0] == (
        "Erratum of 31 August 2016: 20051020_63045_0100_PP has retinopathy grade 0, not 3."
    )
    captions = {item.key: item.caption for item in listing.items}
    assert (
        "增殖期" in captions["20051020_64007_0100_PP"]
        or "重度" in (captions["20051020_64007_0100_PP"])
    )


def test_without_errata_all_is_as_distributed(source, listing):
    plain = scan(source, errata="none")
    labels = {item.key: item.label for item in plain.items}
    assert labels["20051020_64007_0100_PP"] == 1
    assert len(plain.items) == len(listing.items) + 3
    assert (plain.variant, listing.variant, plain.notes) == ("no-errata", "", [])


def test_a_corrected_table_is_preferred_and_needs_no_erratum(copy):
    path = copy / "Annotation_Base11.xls"
    rows = read_table(path)
    rows = [
        {**row, "Retinopathy grade": "3"} if "64007" in row["Image name"] else row for row in rows
    ]
    update = copy / "Annotation_Base11_update20161024.xls"
    save_excel(update, {"Feuil1": [list(rows[0]), *(list(row.values()) for row in rows)]})
    listing = scan(copy)
    assert {item.key: item.label for item in listing.items}["20051020_64007_0100_PP"] == 3
    assert not any("64007" in note for note in listing.notes)


def test_bases_may_lie_further_down_and_in_lower_case(copy, listing, tmp_path):
    (tmp_path / "outer/data").mkdir(parents=True)
    copy.rename(tmp_path / "outer/data/messidor")
    base = tmp_path / "outer/data/messidor/Base11"
    base.rename(base.with_name("base11"))
    again = scan(tmp_path / "outer")
    assert [(i.key, i.caption) for i in again.items] == [(i.key, i.caption) for i in listing.items]


def test_missing_bases_and_tables_are_named_in_one_line(copy):
    shutil.rmtree(copy / "Base21")
    (copy / f"{fixture.ARCHIVE}.zip").unlink()
    (copy / "Annotation_Base11.xls").unlink()
    with pytest.raises(
        ValueError, match=r"it lacks Annotation_Base11\.xls, the images of Base21, "
    ):
        scan(copy)
    with pytest.raises(ValueError, match="not MESSIDOR as distributed") as caught:
        scan(copy / "Base12")
    assert "\n" not in str(caught.value)


def test_a_table_with_other_columns_is_refused(copy):
    save_excel(copy / "Annotation_Base11.xls", {"Feuil1": [["Image name", "Grade"], ["a", 1]]})
    with pytest.raises(ValueError, match="expected the columns Ophthalmologic department, "):
        scan(copy)


def test_an_unknown_option_is_refused(source):
    with pytest.raises(ValueError, match="errata must be applied or none, got 'some'"):
        scan(source, errata="some")
