import csv
import json
import shutil
from collections import Counter

import openpyxl
import pyarrow
import pyarrow.parquet
import pytest

from vclip_jax.datasets.fixtures import generic as fixture
from vclip_jax.datasets.formats import blobs, webdataset
from vclip_jax.datasets.listing import split_by_hash
from vclip_jax.datasets.own import generic

from .listings import reasons


@pytest.fixture(scope="module")
def table(tmp_path_factory):
    folder = tmp_path_factory.mktemp("table")
    fixture.write(folder)
    return folder


@pytest.fixture
def pictures(table, tmp_path):
    shutil.copytree(table / "images", tmp_path / "images")
    return tmp_path


def test_every_row_and_every_image_is_kept_or_rejected(table):
    listing = generic.scan(table)
    assert len(listing.items) == 13
    assert reasons(listing) == {
        "duplicate row": 1,
        "missing image": 1,
        "outside the folder": 1,
        "missing row": 1,
    }


def test_a_table_gives_captions_classes_and_splits(table):
    listing = generic.scan(table, name="clinic")
    assert listing.name == "clinic"
    assert listing.classes == tuple(sorted(fixture.CLASSES))
    items = {item.key: item for item in listing.items}
    one = items["images/2_1.jpg"]
    assert (one.split, one.caption) == ("validation", "糖尿病视网膜病变。")
    assert listing.classes[one.label] == "diabetic retinopathy"
    assert blobs.read(one.image)[:2] == b"\xff\xd8"
    assert items["images/0_3.jpg"].caption == "normal"  # had none
    assert any("1 captions are the name of the class" in note for note in listing.notes)


def test_the_label_may_be_another_column_and_whole_numbers_keep_their_order(pictures):
    book = openpyxl.Workbook()
    rows = [
        ("image", "grade"),
        ("images/0_0.jpg", 10),
        ("images/1_0.jpg", 9),
        ("images/2_0.jpg", 9),
    ]
    for row in rows:
        book.active.append(row)
    book.save(pictures / "grades.xlsx")
    listing = generic.scan(pictures, label="grade")
    assert listing.classes == ("9", "10")
    assert {item.key: item.label for item in listing.items} == {
        "images/0_0.jpg": 1,
        "images/1_0.jpg": 0,
        "images/2_0.jpg": 0,
    }
    assert all(item.split == split_by_hash(item.key) for item in listing.items)
    with pytest.raises(ValueError, match="no column 'stage' for --label-column"):
        generic.scan(pictures, label="stage")


def test_captions_alone_are_a_dataset_without_classes(pictures):
    lines = [{"image": "images/0_0.jpg", "caption": "正常"}, {"image": "images/1_0.jpg"}]
    (pictures / "a.jsonl").write_text("\n".join(map(json.dumps, lines)))
    listing = generic.scan(pictures / "a.jsonl")
    assert [(i.key, i.caption, i.label) for i in listing.items] == [("images/0_0.jpg", "正常", -1)]
    assert listing.classes == ()
    assert reasons(listing)["empty caption"] == 1


def test_the_same_keys_come_from_tables_of_any_kind(pictures, table):
    with open(table / "dataset.csv", encoding="gb18030") as file:
        rows = list(csv.DictReader(file))
    columns = {name: [row[name] for row in rows] for name in rows[0]}
    pyarrow.parquet.write_table(pyarrow.table(columns), pictures / "dataset.parquet")
    listed = {(i.key, i.split, i.caption, i.label) for i in generic.scan(pictures).items}
    assert listed == {(i.key, i.split, i.caption, i.label) for i in generic.scan(table).items}


def test_several_tables_are_splits_by_their_names(pictures):
    for split, label in (("train", 0), ("val", 1), ("test", 2)):
        (pictures / f"{split}.csv").write_text(f"image,label\nimages/{label}_0.jpg,{label}\n")
    (pictures / "notes.csv").write_text("what,why\na,b\n")
    splits = {item.key: item.split for item in generic.scan(pictures).items}
    assert list(splits.values()) == ["test", "train", "validation"]


def test_a_row_with_an_unknown_split_is_rejected(pictures):
    (pictures / "a.csv").write_text("image,label,split\nimages/0_0.jpg,0,fold 3\n")
    assert reasons(generic.scan(pictures))["unknown split"] == 1


@pytest.mark.parametrize("splits", [False, True])
def test_folders_are_classes_below_splits_or_not(tmp_path, splits):
    fixture.write_folders(tmp_path, splits=splits)
    shutil.copy(next(tmp_path.rglob("0_0.png")), tmp_path / "stray.png")
    listing = generic.scan(tmp_path)
    assert listing.classes == tuple(sorted(fixture.CLASSES))
    assert Counter(item.label for item in listing.items) == dict.fromkeys(range(4), 3)
    assert reasons(listing) == {"no class": 1}
    for item in listing.items:
        assert item.caption == listing.classes[item.label]
        expected = item.key.split("/")[0] if splits else split_by_hash(item.key)
        assert item.split == expected


def test_images_beside_the_splits_are_not_lost(tmp_path):
    fixture.write_folders(tmp_path, splits=True)
    shutil.copytree(tmp_path / "train/glaucoma", tmp_path / "masks/glaucoma")
    assert reasons(generic.scan(tmp_path)) == {"no split": 2}


@pytest.mark.parametrize("names", [False, True])
def test_parquet_shards_hold_images_labels_and_their_names(tmp_path, names):
    fixture.write_parquet(tmp_path, names=names)
    listing = generic.scan(tmp_path)
    records = fixture.records()
    assert listing.classes == (fixture.CLASSES if names else ("0", "1", "2", "3"))
    assert [item.label for item in listing.items] == [r["label"] for r in records[5:] + records[:5]]
    assert [i.caption for i in listing.items] == [r["caption"] for r in records[5:] + records[:5]]
    assert Counter(item.split for item in listing.items) == {"train": 5, "test": 4}
    assert listing.items[0].key == "data/test-00000-of-00001/0.jpg"
    assert blobs.read(listing.items[0].image) == records[5]["image"]


def test_another_column_of_images_is_said_once(tmp_path):
    fixture.write_parquet(tmp_path)
    for path in (tmp_path / "data").iterdir():
        table = pyarrow.parquet.read_table(path)
        masks = pyarrow.array([b"png"] * len(table), pyarrow.binary())
        pyarrow.parquet.write_table(table.append_column("mask", masks), path)
    listing = generic.scan(tmp_path)
    assert len(listing.items) == 9
    assert [guess for guess in listing.guesses if "not read: 'mask'" in guess] == [
        "Parquet: caption is 'text', label is 'label'; not read: 'mask'."
    ]


def test_tars_come_back_as_they_were_written(tmp_path):
    records = fixture.records()
    webdataset.write(records[:5], tmp_path / "shards", 2, "train", fixture.CLASSES)
    webdataset.write(records[5:], tmp_path / "shards", 2, "test", fixture.CLASSES)
    listing = generic.scan(tmp_path)
    by_key = {item.key: item for item in listing.items}
    for index, record in enumerate(records):
        item = by_key[record["key"]]
        assert item.split == ("train" if index < 5 else "test")
        assert item.caption == record["caption"]
        name = listing.classes[item.label] if item.label >= 0 else ""
        assert name == ("" if record["label"] < 0 else fixture.CLASSES[record["label"]])
        assert blobs.read(item.image) == record["image"]


def test_tars_that_count_anew_in_every_shard_keep_all_samples(tmp_path):
    records = [{**record, "key": ""} for record in fixture.records()]
    webdataset.write(records[:4], tmp_path, 10, "train-a")
    webdataset.write(records[:4], tmp_path, 10, "train-b")
    listing = generic.scan(tmp_path)
    assert len(listing.items) == 8
    assert listing.items[0].key == "train-a-000000/00000000"


@pytest.mark.parametrize("name", ["", "a-b", "a/b", "../a"])
def test_a_name_is_word_characters(table, name):
    with pytest.raises(ValueError, match="letters, digits and underscores"):
        generic.scan(table, name=name)


def test_a_folder_of_nothing_says_what_is_missing(tmp_path):
    with pytest.raises(ValueError, match="no such folder"):
        generic.scan(tmp_path / "gone")
    with pytest.raises(ValueError, match=r"neither \.tar shards, .* nor a table .* nor folders"):
        generic.scan(tmp_path)
    with pytest.raises(ValueError, match="no table, so no column 'grade'"):
        generic.scan(tmp_path, label="grade")
    (tmp_path / "a.csv").write_text("image,other\nx.jpg,0\n")
    with pytest.raises(ValueError, match="'caption' or 'label', got"):
        generic.scan(tmp_path)
