import shutil
from collections import Counter

import pytest

from vclip_jax import prompts
from vclip_jax.datasets.fixtures import airogs as fixture
from vclip_jax.datasets.readers import airogs


def test_the_class_is_referable_glaucoma(listing):
    assert Counter((item.split, item.label) for item in listing.items) == {
        ("train", 0): 9,
        ("train", 1): 3,
    }
    assert listing.classes == prompts.load("zh/refuge").class_names
    for item in listing.items:
        assert "转诊" in item.caption  # the label says nothing about lesser signs
        assert ("未见" in item.caption) == (item.label == 0)


def test_nothing_is_lost(listing):
    assert {(reject.key, reject.reason) for reject in listing.rejects} == {
        ("TRAIN000000", "duplicate row"),
        ("TRAIN000090", "missing image"),
        ("TRAIN000091", "invalid label"),
        ("TRAIN000092", "missing row"),
    }


def test_images_in_one_folder_are_the_same_dataset(copy, listing):
    (copy / "images").mkdir()
    for path in [*copy.glob("[0-5]/*.*g")]:
        shutil.move(path, copy / "images" / path.name)
    assert {item.key for item in airogs.scan(copy).items} == {item.key for item in listing.items}


def test_folders_of_the_subset_are_splits_and_classes(tmp_path):
    fixture.write_light(tmp_path / "archive/eyepac-light-v2-512-jpg")
    listing = airogs.scan(tmp_path)
    assert Counter((item.split, item.label) for item in listing.items) == {
        (split, label): 2 for split in ("train", "validation", "test") for label in (0, 1)
    }
    assert listing.variant == "light"
    assert [(r.key, r.reason) for r in listing.rejects] == [
        ("train/EyePACS-TRAIN-3", "invalid label")
    ]


def test_one_of_several_copies_of_the_subset_must_be_named(tmp_path):
    for name in ("release-crop", "release-raw"):
        fixture.write_light(tmp_path / name / name)
    with pytest.raises(ValueError, match="give one of the folders release-crop/release-crop, "):
        airogs.scan(tmp_path)
    assert len(airogs.scan(tmp_path / "release-raw").items) == 12


def test_a_wrong_layout_says_what_is_missing(tmp_path):
    with pytest.raises(
        ValueError, match=r"lacks train_labels\.csv or folders train/RG and train/N"
    ):
        airogs.scan(tmp_path)
    (tmp_path / "train_labels.csv").write_text("id,class\nTRAIN000000,RG\n")
    with pytest.raises(ValueError, match="expected the columns challenge_id"):
        airogs.scan(tmp_path)
