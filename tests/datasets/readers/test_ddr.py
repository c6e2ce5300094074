from collections import Counter

import pytest

from vclip_jax.datasets.fixtures import ddr as fixture
from vclip_jax.datasets.readers import ddr
from vclip_jax.datasets.readers.words import RETINOPATHY


def test_the_publishers_parts_are_the_splits(listing):
    assert Counter((item.split, item.label) for item in listing.items) == {
        **{("train", grade): 1 for grade in (0, 1, 2, 3, 4, -1)},
        **{("validation", grade): 1 for grade in (0, 2, -1)},
        **{("test", grade): 1 for grade in range(5)},
    }
    for item in listing.items:
        if item.label >= 0:
            assert any(words in item.caption for words in RETINOPATHY[item.label])


def test_an_ungradable_photograph_stays_without_a_label(listing):
    assert listing.columns == {"quality": str}
    for item in listing.items:
        assert item.values == ("ungradable" if item.label < 0 else "gradable",)
        assert any(words in item.caption for words in ddr.WORDS) == (item.label < 0)


def test_nothing_is_lost(listing):
    assert {(reject.key, reject.reason) for reject in listing.rejects} == {
        ("007-0001-100", "duplicate row"),
        ("20170413102628830", "missing image"),
        ("007-9000-000", "invalid label"),
        ("007-9001-000", "missing row"),
    }
    assert listing.notes[-1] == "1 images are no photographs, such as masks, and are not read."


def test_kaggles_copy_is_one_split(tmp_path):
    fixture.write_mirror(tmp_path / "archive")
    listing = ddr.scan(tmp_path)
    assert Counter((item.split, item.label) for item in listing.items) == {
        ("test", grade): 2 for grade in range(5)
    }
    assert listing.variant == "mirror"
    assert listing.rejects == []


def test_the_folder_itself_may_be_given_and_a_part_may_be_missing(copy, listing):
    root = copy / "DDR-dataset/DR_grading"
    (root / "valid.txt").unlink()
    again = ddr.scan(root)
    assert [item.key for item in again.items] == [
        item.key for item in listing.items if item.split != "validation"
    ]
    assert "valid.txt is not there: no split 'validation'." in again.notes


def test_a_wrong_layout_says_what_is_missing(copy, tmp_path):
    with pytest.raises(ValueError, match=r"lacks DR_grading/train\.txt or DR_grading\.csv"):
        ddr.scan(tmp_path / "none")
    root = copy / "DDR-dataset/DR_grading"
    (root / "test").rename(root / "other")
    with pytest.raises(ValueError, match="not DDR as distributed, it lacks test"):
        ddr.scan(copy)
    (root / "train.txt").write_text("007-0000-000.jpg 0\n007-0001-100.jpg\n")
    with pytest.raises(ValueError, match=r"train\.txt: line 2 is '007-0001-100\.jpg', not a name"):
        ddr.scan(copy)
