"""FIVES from a miniature of its folder."""

import shutil
from collections import Counter

import pytest

from vclip_jax import prompts
from vclip_jax.datasets.fixtures import fives as fixture
from vclip_jax.datasets.fixtures.pictures import save_excel
from vclip_jax.datasets.readers.fives import CLASSES, scan


@pytest.fixture
def copy(source, tmp_path):
    shutil.copytree(source / fixture.TITLE, tmp_path / "copy")
    return tmp_path / "copy"


def test_the_letter_is_the_class_and_the_prompts_have_the_same_classes(listing):
    assert prompts.load("zh/fives").label_names == listing.classes == CLASSES
    letters = {item.label: item.key[-1] for item in listing.items}
    assert letters == {0: "N", 1: "A", 2: "D", 3: "G"}
    counts = Counter((item.split, item.label) for item in listing.items)
    assert counts == {(split, label): 2 for split in ("train", "test") for label in range(4)}


def test_keys_name_the_split_because_numbers_repeat(listing):
    keys = {item.key for item in listing.items}
    assert {"train/1_A", "test/1_A"} <= keys
    assert all(item.key.startswith(f"{item.split}/") for item in listing.items)
    assert all("/Original/" in item.image.path for item in listing.items)


def test_quality_is_read_and_unknown_where_it_is_not_listed(listing):
    quality = {item.key: item.values for item in listing.items}
    assert list(listing.columns) == ["ic", "blur", "lc"]
    assert quality["train/2_A"] == (1, 0, 1)
    assert quality["train/3_D"] == (1, 1, 0)
    assert quality["train/8_N"] == (-1, -1, -1)
    assert not any("quality" in note for note in listing.notes)


def test_what_cannot_be_an_item_is_rejected_with_its_reason(listing):
    assert {(reject.key, reject.reason) for reject in listing.rejects} == {
        ("train/150_N", "missing image"),
        ("train/1_A", "duplicate row"),
        ("train/1_A", "duplicate image"),
        ("train/9_X", "invalid label"),
    }
    first = next(item for item in listing.items if item.key == "train/1_A")
    assert first.image.path.endswith(".png")


def test_the_folder_may_lie_two_levels_down(source, listing, tmp_path):
    shutil.copytree(source, tmp_path / "download")
    again = scan(tmp_path)
    assert [item.key for item in again.items] == [item.key for item in listing.items]


def test_without_the_table_or_a_sheet_the_quality_is_unknown_and_noted(copy, listing):
    save_excel(
        copy / "Quality Assessment.xlsx",
        {"test": [["Disease", "Number", "IC", "Blur", "LC"], ["A", 1, 0, 0, 0]]},
    )
    half = scan(copy)
    quality = {item.key: item.values for item in half.items}
    assert quality["test/1_A"] == (0, 0, 0)
    assert quality["train/1_A"] == (-1, -1, -1)
    assert len(half.notes) == 1
    (copy / "Quality Assessment.xlsx").unlink()
    none = scan(copy)
    assert len(none.notes) == 2
    assert {item.values for item in none.items} == {(-1, -1, -1)}
    assert [item.caption for item in none.items] == [item.caption for item in listing.items]


def test_a_damaged_table_is_an_error(copy):
    (copy / "Quality Assessment.xlsx").write_bytes(b"not Excel")
    with pytest.raises(ValueError, match="not an Excel file"):
        scan(copy)


def test_a_missing_split_is_named_in_one_line(copy, tmp_path):
    shutil.rmtree(copy / "test" / "Original")
    with pytest.raises(ValueError, match="it lacks test/Original") as caught:
        scan(copy)
    assert "\n" not in str(caught.value)
    (copy / "test" / "Original").mkdir()
    with pytest.raises(ValueError, match="test/Original has no images"):
        scan(copy)
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match="it lacks train/Original, test/Original"):
        scan(tmp_path / "empty")
