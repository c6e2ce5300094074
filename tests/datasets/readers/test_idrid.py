"""IDRiD from a miniature of its folder, and from the real one where that is at hand."""

import hashlib
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from vclip_jax import prompts
from vclip_jax.data.text.wordpiece import WordPiece
from vclip_jax.datasets.readers.idrid import CLASSES, caption, scan, split_of

REAL = Path(__file__).parents[4] / "shared/data/idrid"
IMAGES = "B. Disease Grading/1. Original Images/a. Training Set"
LABELS = "B. Disease Grading/2. Groundtruths/a. IDRiD_Disease Grading_Training Labels.csv"


def test_grades_splits_and_captions_are_read(source):
    listing = scan(source)
    items = {item.key: item for item in listing.items}
    assert set(items) == {f"train/IDRiD_{index:03}" for index in range(1, 16)} | {
        f"test/IDRiD_{index:03}" for index in range(1, 7)
    }
    for item in items.values():
        index = int(item.key[-3:]) - 1
        assert (item.label, item.values) == (index % 5, (index % 3,))
        assert item.split == split_of(item.key)
        assert item.caption == caption(item.key, index % 5, index % 3)
        assert "Segmentation" not in item.image.path
    assert Counter(item.split for item in listing.items) == {"train": 13, "holdout": 2, "test": 6}


def test_classes_are_the_grades(source):
    listing = scan(source)
    assert prompts.load("zh/idrid").class_names == listing.classes == CLASSES
    assert listing.columns == {"dme": int}


def test_what_cannot_be_an_item_is_rejected_with_its_reason(source):
    assert {(reject.key, reject.reason) for reject in scan(source).rejects} == {
        ("train/IDRiD_003", "duplicate row"),
        ("train/IDRiD_016", "missing image"),
        ("train/IDRiD_017", "missing row"),
        ("train/IDRiD_018", "invalid label"),
    }


def test_the_folder_itself_may_be_the_source(source):
    assert scan(source / "B. Disease Grading").items == scan(source).items


def test_it_may_lie_in_folders_within_a_folder_as_kaggle_packs_it(tmp_path, source):
    inner = tmp_path / "B.%20Disease%20Grading" / "B. Disease Grading"
    shutil.copytree(source / "B. Disease Grading", inner)
    assert len(scan(tmp_path).items) == len(scan(source).items)


def test_without_the_testing_set_there_is_a_holdout(tmp_path, write_idrid):
    listing = scan(write_idrid(tmp_path))
    assert {item.split for item in listing.items} == {"train", "holdout"}
    assert listing.rejects == []


def test_the_holdout_is_a_fifth_and_depends_on_the_key_alone():
    splits = [split_of(f"train/IDRiD_{index:03}") for index in range(1, 414)]
    assert 0.15 < splits.count("holdout") / 413 < 0.25
    assert set(splits) == {"train", "holdout"}
    assert split_of("test/IDRiD_001") == "test"


def test_captions_are_those_that_models_were_trained_on():
    keys = [f"train/IDRiD_{index:03}" for index in range(1, 414)]
    keys += [f"test/IDRiD_{index:03}" for index in range(1, 104)]
    sentences = [caption(key, dr, dme) for key in keys for dr in range(5) for dme in range(3)]
    digest = hashlib.sha256("\n".join(sentences).encode()).hexdigest()
    assert digest == "7d91b7deade280dc9860797cef95cefa28f03a5d992f4232b7018064f99e77cc"
    assert caption("test/IDRiD_001", 0, 0) == "未见糖尿病视网膜病变征象，未见糖尿病黄斑水肿。"


def test_captions_are_varied_and_fit_the_context():
    keys = [f"train/IDRiD_{index:03}" for index in range(100)]
    captions = {
        (dr, dme): [caption(key, dr, dme) for key in keys] for dr in range(5) for dme in range(3)
    }
    assert all(len(set(variants)) >= 6 for variants in captions.values())
    by_grade = [{c for dme in range(3) for c in captions[dr, dme]} for dr in range(5)]
    assert sum(map(len, by_grade)) == len(set().union(*by_grade)), "grades share no caption"
    every = sorted(set().union(*by_grade))
    tokens = WordPiece.from_captions(every).encode(every, 80)
    assert (tokens > 0).sum(axis=1).max() <= 52


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: edit(root, "Retinopathy grade", "Grade"), "expected the columns"),
        (lambda root: (root / LABELS).unlink(), "lacks 2. Groundtruths"),
        (lambda root: shutil.rmtree(root / IMAGES), "lacks 1. Original Images/a. Training Set"),
        (lambda root: edit(root, ",0,", ",7,"), "there is no photograph with a label"),
    ],
)
def test_a_wrong_layout_is_named_in_one_line(tmp_path, write_idrid, change, message):
    source = write_idrid(tmp_path, train=1)
    change(source)
    with pytest.raises(ValueError, match=message) as caught:
        scan(source)
    assert "\n" not in str(caught.value)


def test_half_a_testing_set_is_named(tmp_path, write_idrid):
    source = write_idrid(tmp_path, train=2, test=2)
    shutil.rmtree(source / "B. Disease Grading/1. Original Images/b. Testing Set")
    with pytest.raises(ValueError, match=r"lacks 1\. Original Images/b\. Testing Set"):
        scan(source)


def edit(root: Path, old: str, new: str) -> None:
    (root / LABELS).write_text((root / LABELS).read_text().replace(old, new))


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not IDRiD's disease grading as distributed"):
        scan(tmp_path)


@pytest.mark.skipif(not REAL.exists(), reason=f"the photographs {REAL} are not there")
def test_the_real_training_set_has_the_published_counts():
    listing = scan(REAL)
    items = [item for item in listing.items if item.split != "test"]
    assert np.bincount([item.label for item in items]).tolist() == [134, 20, 136, 74, 49]
    assert np.bincount([item.values[0] for item in items]).tolist() == [177, 41, 195]
    assert listing.rejects == []
