from collections import Counter

import pytest

from vclip_jax import prompts
from vclip_jax.datasets.readers import g1020
from vclip_jax.datasets.readers.words import GLAUCOMA


def test_all_images_are_in_one_split_because_no_patient_is_named(listing):
    assert Counter((item.split, item.label) for item in listing.items) == {
        ("test", 0): 5,
        ("test", 1): 3,
    }
    assert listing.classes == prompts.load("zh/refuge").class_names
    assert all(
        any(words in item.caption for words in GLAUCOMA[item.label]) for item in listing.items
    )


def test_nothing_is_lost(listing):
    assert {(reject.key, reject.reason) for reject in listing.rejects} == {
        ("image_2", "duplicate row"),
        ("image_90", "missing image"),
        ("image_91", "invalid label"),
        ("image_92", "missing row"),
    }
    assert any("1 in G1020/Images_Cropped/img" in note for note in listing.notes)
    assert listing.notes[-1] == "1 images are no photographs, such as masks, and are not read."


def test_a_wrong_layout_says_what_is_missing(copy, tmp_path):
    with pytest.raises(ValueError, match=r"lacks G1020\.csv"):
        g1020.scan(tmp_path / "none")
    (copy / "G1020/Images").rename(copy / "G1020/Other")
    with pytest.raises(ValueError, match="not G1020 as distributed, it lacks Images"):
        g1020.scan(copy)
    (copy / "G1020/Other").rename(copy / "G1020/images")
    (copy / "G1020/G1020.csv").write_text("imageID,label\nimage_0.jpg,0\n")
    with pytest.raises(ValueError, match="expected the columns binaryLabels"):
        g1020.scan(copy)
