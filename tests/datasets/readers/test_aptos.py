import shutil
from collections import Counter

import pytest

from vclip_jax.datasets.fixtures import aptos as fixture
from vclip_jax.datasets.formats import blobs
from vclip_jax.datasets.readers import aptos
from vclip_jax.datasets.readers.words import RETINOPATHY


@pytest.fixture(scope="module")
def kaggle(tmp_path_factory):
    folder = tmp_path_factory.mktemp("kaggle")
    fixture.write(folder)
    return folder


@pytest.fixture(scope="module")
def mirror(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mirror") / "archive"
    fixture.write_mirror(folder)
    return folder


def test_kaggles_training_set_is_graded_and_its_test_set_is_not(kaggle):
    listing = aptos.scan(kaggle)
    assert Counter((item.split, item.label) for item in listing.items) == {
        **{("train", grade): 3 for grade in range(5)},
        ("unlabelled", -1): 4,
    }
    assert Counter(reject.reason for reject in listing.rejects) == {
        "duplicate row": 1,
        "missing image": 1,
        "missing row": 1,
    }
    for item in listing.items:
        assert blobs.read(item.image).startswith(b"\x89PNG")
        if item.label < 0:
            assert item.caption == "眼底彩照。"
        else:
            assert any(words in item.caption for words in RETINOPATHY[item.label])


def test_the_mirror_is_graded_throughout_and_its_empty_rows_are_nothing(mirror):
    listing = aptos.scan(mirror.parent)
    assert Counter(item.split for item in listing.items) == {
        "train": 10,
        "validation": 5,
        "test": 5,
    }
    assert min(item.label for item in listing.items) == 0
    assert listing.rejects == []
    assert listing.variant == "mirror"


def test_an_image_has_the_same_key_and_caption_in_both_layouts(kaggle, mirror):
    first = {item.key: item.caption for item in aptos.scan(kaggle).items}
    second = {item.key: item.caption for item in aptos.scan(mirror).items}
    assert len(first.keys() & second.keys()) == 15
    assert all(first[key] == second[key] for key in first.keys() & second.keys())


def test_a_grade_that_is_none_is_rejected(kaggle, tmp_path):
    shutil.copytree(kaggle, tmp_path, dirs_exist_ok=True)
    table = tmp_path / "train.csv"
    table.write_text(table.read_text().replace(",3\n", ",7\n", 1))
    rejects = aptos.scan(tmp_path).rejects
    assert next(r for r in rejects if r.reason == "invalid label").detail.endswith("'7'")


def test_rows_and_files_of_one_image_are_rejects(kaggle, tmp_path):
    shutil.copytree(kaggle, tmp_path, dirs_exist_ok=True)
    before = {item.key for item in aptos.scan(tmp_path).items if item.split == "train"}
    first, second = sorted(before)[:2]
    with open(tmp_path / "train.csv", "a", encoding="utf-8") as table:
        table.write(f"{first},0\n{first},1\n")
    (tmp_path / f"train_images/{second}.jpg").write_bytes(b"\xff\xd8\xff")
    shutil.copy(tmp_path / f"train_images/{second}.png", tmp_path / f"test_images/{second}.png")
    with open(tmp_path / "test.csv", "a", encoding="utf-8") as table:
        table.write(f"{second}\n")
    listing = aptos.scan(tmp_path)
    assert {item.key for item in listing.items if item.split == "train"} == before - {first}
    assert Counter(reject.reason for reject in listing.rejects if reject.key == first) == {
        "conflicting rows": 3
    }
    assert Counter(reject.reason for reject in listing.rejects if reject.key == second) == {
        "duplicate image": 1,
        "duplicate row": 1,
    }


def test_a_wrong_layout_says_what_is_missing(kaggle, tmp_path):
    with pytest.raises(ValueError, match=r"lacks train\.csv or train_1\.csv"):
        aptos.scan(tmp_path)
    shutil.copy(kaggle / "train.csv", tmp_path)
    with pytest.raises(ValueError, match="lacks train_images"):
        aptos.scan(tmp_path)
    (tmp_path / "train_images").mkdir()
    (tmp_path / "train.csv").write_text("id,grade\na,1\n")
    with pytest.raises(ValueError, match="expected the columns id_code, diagnosis"):
        aptos.scan(tmp_path)
