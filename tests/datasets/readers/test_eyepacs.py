import shutil
from collections import Counter

import pytest

from vclip_jax.datasets.fixtures import eyepacs as fixture
from vclip_jax.datasets.readers import eyepacs
from vclip_jax.datasets.readers.words import RETINOPATHY


def test_the_usage_of_a_test_image_is_its_split(listing):
    assert Counter(item.split for item in listing.items) == {
        "train": 8,
        "validation": 2,
        "test": 4,
    }
    assert {item.key for item in listing.items if item.split == "validation"} == {
        "2_left",
        "2_right",
    }
    assert {item.label for item in listing.items} == set(range(5))
    assert all(
        any(words in item.caption for words in RETINOPATHY[item.label]) for item in listing.items
    )


def test_the_number_is_the_patient_and_no_split_parts_one(listing):
    assert listing.columns == {"patient": str, "eye": str}
    values = {item.key: item.values for item in listing.items}
    assert values["10_left"] == ("10", "left")
    assert values["3_right"] == ("3", "right")
    splits = {}
    for item in listing.items:
        splits.setdefault(item.values[0], set()).add(item.split)
    assert all(len(own) == 1 for own in splits.values())


def test_nothing_is_lost(listing):
    assert {(reject.key, reject.reason) for reject in listing.rejects} == {
        ("13_right", "duplicate row"),
        ("90_left", "missing image"),
        ("91_left", "invalid label"),
        ("91_right", "missing row"),
    }


def test_a_resized_copy_has_the_same_items(listing, tmp_path):
    fixture.write_resized(tmp_path / "archive")
    copy = eyepacs.scan(tmp_path)
    assert [(i.key, i.split, i.caption, i.label, i.values) for i in copy.items] == [
        (i.key, i.split, i.caption, i.label, i.values) for i in listing.items
    ]
    assert copy.rejects == []


def test_the_doubled_folders_of_kaggles_copy_are_read(copy, listing):
    (copy / "resized_train").mkdir()
    shutil.move(copy / "train", copy / "resized_train/resized_train")
    assert [item.key for item in eyepacs.scan(copy).items] == [i.key for i in listing.items]
    table = (copy / "trainLabels.csv").rename(copy / "trainLabels_cropped.csv")
    lines = table.read_text().splitlines()
    table.write_text("\n".join(f"{n or ''},{line}" for n, line in enumerate(lines)))
    (copy / "resized_train").rename(copy / "resized_train_cropped")
    assert len([i for i in eyepacs.scan(copy).items if i.split == "train"]) == 8


def test_without_the_table_of_the_test_images_there_are_none_and_a_note_says_so(copy):
    (copy / "retinopathy_solution.csv").unlink()
    listing = eyepacs.scan(copy)
    assert {item.split for item in listing.items} == {"train"}
    assert "The test images or their table are not there: no split 'test'." in listing.notes


def test_without_the_usage_all_test_images_are_the_test_split(copy):
    table = copy / "retinopathy_solution.csv"
    text = table.read_text()
    table.write_text(text.replace(",Public", "").replace(",Private", "").replace(",Usage", ""))
    assert Counter(item.split for item in eyepacs.scan(copy).items) == {"train": 8, "test": 6}
    table.write_text(text.replace("2_left,2,Public", "2_left,2,Secret"))
    rejects = eyepacs.scan(copy).rejects
    assert ("2_left", "unknown split") in {(reject.key, reject.reason) for reject in rejects}


def test_a_wrong_layout_says_what_is_missing(copy, tmp_path):
    with pytest.raises(ValueError, match=r"it lacks trainLabels\.csv and a folder train"):
        eyepacs.scan(tmp_path / "none")
    (copy / "trainLabels.csv").write_text("image,grade\n10_left,0\n")
    with pytest.raises(ValueError, match="expected the columns level"):
        eyepacs.scan(copy)
