"""ACRIMA from a miniature of its folder."""

from collections import Counter

import pytest

from vclip_jax import prompts
from vclip_jax.datasets.readers.acrima import scan


def test_the_name_is_the_label(source):
    listing = scan(source)
    assert Counter(item.label for item in listing.items) == {0: 6, 1: 6}
    assert all(("_g_" in item.key) == (item.label == 1) for item in listing.items)
    assert {item.split for item in listing.items} == {"test"}
    assert listing.classes == prompts.load("zh/refuge").label_names
    assert listing.columns == {}


def test_capital_suffixes_are_images_too(source):
    keys = {item.key: item.image.path for item in scan(source).items}
    assert keys["Im315_g_ACRIMA"].endswith(".JPG")


def test_copies_and_other_images_are_rejected(source):
    listing = scan(source)
    assert {(reject.key, reject.reason) for reject in listing.rejects} == {
        ("Im001_ACRIMA", "duplicate image"),
        ("montage", "invalid label"),
    }


def test_any_folder_with_the_images_will_do(source):
    keys = [item.key for item in scan(source / "Database/Images").items]
    assert keys == [item.key for item in scan(source / "Database").items if "Im" in item.key]


def test_a_folder_without_such_images_is_refused(tmp_path):
    (tmp_path / "photograph.jpg").touch()
    with pytest.raises(ValueError, match=r"it lacks images named like Im001_ACRIMA\.jpg"):
        scan(tmp_path)
