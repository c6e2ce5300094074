import csv
import shutil
from collections import Counter

import pytest

from vclip_jax.datasets.fixtures import deepdrid as fixture
from vclip_jax.datasets.formats import blobs
from vclip_jax.datasets.readers import deepdrid
from vclip_jax.datasets.readers.words import RETINOPATHY


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("deepdrid") / "DeepDRiD-master"
    fixture.write(folder)
    return folder


@pytest.fixture(scope="module")
def listing(folder):
    return deepdrid.scan(folder)


def test_both_photographs_of_an_eye_have_its_level(listing):
    items = {item.key: item for item in listing.items}
    assert Counter(item.split for item in listing.items) == {
        "train": 12,
        "validation": 4,
        "test": 4,
    }
    assert [items[f"1_{view}"].label for view in ("l1", "l2", "r1", "r2")] == [1, 1, 2, 2]
    assert set(Counter(item.label for item in listing.items)) == set(range(5))
    for item in listing.items:
        assert any(words in item.caption for words in RETINOPATHY[item.label])
        assert blobs.read(item.image)[:2] == b"\xff\xd8"


def test_the_filled_level_counts_where_a_name_says_the_other_eye(listing):
    items = {item.key: item for item in listing.items}
    assert items["56_r3"].label == items["56_l1"].label != items["56_l3"].label


def test_each_photograph_has_its_own_eyes_level_where_a_table_fills_both(tmp_path):
    fixture.write(tmp_path)
    (table,) = tmp_path.rglob("regular-fundus-training.csv")
    with open(table, encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    for row in rows:
        row["left_eye_DR_Level"], row["right_eye_DR_Level"] = "1", "3"
    with open(table, "w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    items = [item for item in deepdrid.scan(tmp_path).items if item.split == "train"]
    assert {(item.key.partition("_")[2][0], item.label) for item in items} == {("l", 1), ("r", 3)}


def test_qualities_come_along_from_both_kinds_of_table(listing):
    items = {
        item.key: dict(zip(listing.columns, item.values, strict=True)) for item in listing.items
    }
    assert items["1_l2"] == {
        "patient": "1",
        "eye": "left",
        "overall_quality": 1,
        "artefact": 4,
        "clarity": 8,
        "field_definition": 10,
    }
    assert items["347_r1"]["artefact"] == 8
    assert items["347_r1"]["clarity"] == 6


def test_nothing_is_lost(listing):
    assert {(reject.key, reject.reason) for reject in listing.rejects} == {
        ("1_l1", "duplicate row"),
        ("7_l1", "missing image"),
        ("2_l3", "invalid label"),
        ("2_r3", "missing row"),
    }


def test_the_training_set_alone_will_do(folder, listing, tmp_path):
    shutil.copytree(
        folder / "regular_fundus_images/regular-fundus-training",
        tmp_path / "regular-fundus-training",
    )
    items = deepdrid.scan(tmp_path).items
    assert [i.key for i in items] == [i.key for i in listing.items if i.split == "train"]


def test_without_the_qualities_of_the_test_set_they_are_unknown(folder, tmp_path):
    shutil.copytree(folder, tmp_path, dirs_exist_ok=True)
    next(tmp_path.rglob("Challenge2_labels.xlsx")).unlink()
    item = next(i for i in deepdrid.scan(tmp_path).items if i.split == "test")
    assert item.values[2:] == (-1, -1, -1, -1)


def test_a_wrong_layout_says_what_is_missing(folder, tmp_path):
    with pytest.raises(ValueError, match=r"lacks regular-fundus-training/regular-fundus-train"):
        deepdrid.scan(tmp_path)
    name = "regular-fundus-training"
    (tmp_path / name).mkdir()
    table = tmp_path / name / f"{name}.csv"
    table.write_text("image_id\n1_l1\n")
    with pytest.raises(ValueError, match="columns left_eye_DR_Level, right_eye_DR_Level"):
        deepdrid.scan(tmp_path)
    shutil.copy(folder / "regular_fundus_images" / name / f"{name}.csv", table)
    with pytest.raises(ValueError, match="it lacks Images"):
        deepdrid.scan(tmp_path)
