"""REFUGE from a miniature of its three parts."""

import shutil
from collections import Counter

import pytest

from vclip_jax import prompts
from vclip_jax.datasets.readers.refuge import scan


def test_each_part_is_a_split_with_its_own_kind_of_labels(listing):
    counts = Counter((item.split, item.label) for item in listing.items)
    assert counts == {
        ("train", 0): 4,
        ("train", 1): 2,
        ("validation", 0): 2,
        ("validation", 1): 2,
        ("test", 0): 2,
        ("test", 1): 2,
    }
    labels = {item.key: item.label for item in listing.items}
    assert (labels["g0001"], labels["n0001"], labels["V0002"], labels["T0004"]) == (1, 0, 1, 0)
    assert listing.classes == prompts.load("zh/refuge").label_names


def test_captions_say_what_the_label_says(listing):
    denials = ("未见", "无青光眼")
    for item in listing.items:
        assert "青光眼" in item.caption
        assert any(denial in item.caption for denial in denials) == (item.label == 0)


def test_the_fovea_is_read_and_unknown_where_it_is_not_listed(listing):
    fovea = {item.key: item.values for item in listing.items}
    assert listing.columns == {"fovea_x": float, "fovea_y": float}
    assert fovea["g0001"] == (30.125, 49.5)
    assert fovea["n0004"] == (-1.0, -1.0)
    assert fovea["V0001"] == (40.5, 51.25)
    assert fovea["T0001"] == (47.75, 50.0)
    assert all(isinstance(value, float) for values in fovea.values() for value in values)


def test_what_cannot_be_an_item_is_rejected_with_its_reason(listing):
    assert {(reject.key, reject.reason) for reject in listing.rejects} == {
        ("n0002", "duplicate image"),
        ("n0360", "missing image"),
        ("V0098", "missing image"),
        ("V0099", "missing row"),
        ("T0001", "duplicate row"),
    }


def test_outlines_are_not_photographs_even_beside_them(copy, listing):
    masks = copy / "REFUGE-Validation400-GT/Disc_Cup_Masks"
    shutil.copytree(masks, copy / "REFUGE-Validation400/masks")
    again = scan(copy)
    assert len(again.items) == len(listing.items)
    assert len(again.rejects) == len(listing.rejects)


def test_flairs_files_are_the_training_part_alone(source, copy):
    flair = scan(source, files="flair")
    assert {item.split for item in flair.items} == {"train"}
    assert len(flair.items) == 6
    assert flair.variant == "flair"
    shutil.rmtree(copy / "Test400")
    assert scan(copy, files="flair").variant == "flair"


def test_parts_that_are_not_there_are_noted(copy):
    for name in ("Test400", "REFUGE-Test-GT", "REFUGE-Validation400", "REFUGE-Validation400-GT"):
        shutil.rmtree(copy / name)
    listing = scan(copy)
    assert {item.split for item in listing.items} == {"train"}
    assert listing.notes == [
        "Validation400 is not there: no split 'validation'.",
        "Test400 is not there: no split 'test'.",
    ]


def test_archives_unpacked_into_folders_of_their_own_are_read_too(copy, listing, tmp_path):
    for name in ("Test400", "REFUGE-Validation400"):
        (tmp_path / name).mkdir()
        (copy / name).rename(tmp_path / name / name)
        (tmp_path / name).rename(copy / name)
    again = scan(tmp_path)
    assert [item.key for item in again.items] == [item.key for item in listing.items]


def test_without_its_table_the_fovea_of_the_training_part_is_unknown(copy):
    (copy / "Annotation-Training400/Fovea_location.xlsx").unlink()
    listing = scan(copy)
    assert {item.values for item in listing.items if item.split == "train"} == {(-1.0, -1.0)}
    assert "no Fovea_location.xlsx" in listing.notes[0]


@pytest.mark.parametrize(
    ("gone", "message"),
    [
        ("Training400", "lacks Training400/Non-Glaucoma, Training400/Glaucoma"),
        ("Training400/Glaucoma", "lacks Training400/Glaucoma"),
        ("Test400", "Test400 lacks test400"),
        ("REFUGE-Test-GT", "Test400 lacks glaucoma_label_and_fovea_location.xlsx"),
    ],
)
def test_what_is_missing_is_named_in_one_line(copy, gone, message):
    shutil.rmtree(copy / gone)
    with pytest.raises(ValueError, match=message) as caught:
        scan(copy)
    assert "\n" not in str(caught.value)


def test_an_unknown_option_is_refused(source):
    with pytest.raises(ValueError, match="files must be all or flair, got 'test'"):
        scan(source, files="test")
