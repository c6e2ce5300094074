import shutil
from collections import Counter

import pytest

from vclip_jax import prompts
from vclip_jax.datasets.fixtures import rfmid as fixture
from vclip_jax.datasets.fixtures import rfmid2 as fixture2
from vclip_jax.datasets.formats import blobs
from vclip_jax.datasets.readers import findings, rfmid, rfmid2


def found(listing, key):
    """The findings that an item has."""
    values = next(item.values for item in listing.items if item.key == key)
    return {
        column.removeprefix("findings/")
        for column, value in zip(listing.columns, values, strict=True)
        if value == 1
    }


def test_each_part_is_a_split_of_normal_and_abnormal_eyes(listing):
    assert Counter((item.split, item.label) for item in listing.items) == {
        ("train", 0): 2,
        ("train", 1): 5,
        ("validation", 0): 1,
        ("validation", 1): 2,
        ("test", 0): 1,
        ("test", 1): 3,
    }
    assert listing.classes == prompts.load("zh/rfmid").class_names
    assert all(blobs.read(item.image).startswith(b"\x89PNG") for item in listing.items)


def test_the_45_codes_are_findings_by_their_names(listing):
    assert len(listing.columns) == 45
    assert set(listing.columns.values()) == {int}
    assert found(listing, "train/4") == {"age-related macular degeneration", "drusen"}
    assert found(listing, "test/3") == {"central retinal vein occlusion", "cotton wool spots"}
    assert found(listing, "train/1") == found(listing, "train/7") == set()
    assert {value for item in listing.items for value in item.values} == {0, 1}


def test_a_caption_names_every_finding_and_no_other(listing):
    captions = {item.key: item.caption for item in listing.items}
    assert "玻璃膜疣" in captions["train/4"]
    assert "黄斑变性" in captions["train/4"]
    assert any(words in captions["train/1"] for words in findings.NORMAL)
    assert any(words in captions["train/7"] for words in findings.ABNORMAL)
    for item in listing.items:
        named = {
            name
            for name in (column.removeprefix("findings/") for column in listing.columns)
            if any(phrase in item.caption for phrase in findings.PHRASES[name])
        }
        assert named == found(listing, item.key)


def test_nothing_is_lost(listing):
    assert {(reject.key, reject.reason) for reject in listing.rejects} == {
        ("train/3", "duplicate row"),
        ("train/90", "missing image"),
        ("train/91", "missing row"),
        ("train/92", "contradicting labels"),
        ("train/93", "invalid label"),
    }


def test_the_challenges_layout_has_the_same_images_and_28_findings(listing, tmp_path):
    fixture.write_challenge(tmp_path)
    challenge = rfmid.scan(tmp_path)
    assert len(challenge.columns) == 28
    assert {(item.key, item.split, item.label) for item in challenge.items} == {
        (item.key, item.split, item.label) for item in listing.items
    }
    assert found(challenge, "test/3") == {"central retinal vein occlusion", "other diseases"}
    assert challenge.rejects == []


def test_tables_and_folders_side_by_side_are_read_too(copy, listing, tmp_path):
    for path in [*copy.rglob("*.csv")]:
        shutil.move(path, tmp_path / path.name)
    for name in ("Training", "Validation", "Test"):
        shutil.move(next(path for path in copy.rglob(name)), tmp_path / name)
    assert {item.key for item in rfmid.scan(tmp_path).items} == {i.key for i in listing.items}


def test_a_part_that_is_not_there_is_noted_and_images_that_are_not_there_are_refused(copy):
    shutil.rmtree(copy / "Test_Set")
    listing = rfmid.scan(copy)
    assert {item.split for item in listing.items} == {"train", "validation"}
    assert "The table of the testing part is not there: no split 'test'." in listing.notes
    shutil.rmtree(copy / "Evaluation_Set/Evaluation_Set/Validation")
    with pytest.raises(ValueError, match=r"RFMiD_Validation_Labels\.csv, in a folder such as v"):
        rfmid.scan(copy)


def test_a_wrong_layout_says_what_is_missing(copy, tmp_path):
    with pytest.raises(ValueError, match=r"it lacks RFMiD_Training_Labels\.csv"):
        rfmid.scan(tmp_path / "none")
    table = copy / "Training_Set/Training_Set/RFMiD_Training_Labels.csv"
    table.write_text("ID,DR\n1,0\n")
    with pytest.raises(ValueError, match="expected the columns Disease_Risk"):
        rfmid.scan(copy)


def test_both_datasets_called_rfmid_may_lie_in_one_folder(copy, listing):
    fixture2.write(copy / "RFMiD2_0")
    assert {i.key for i in rfmid.scan(copy).items} == {i.key for i in listing.items}
    assert rfmid2.scan(copy).items == rfmid2.scan(copy / "RFMiD2_0").items
