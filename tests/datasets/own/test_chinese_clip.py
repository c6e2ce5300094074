"""Datasets from Chinese-CLIP's files and databases."""

import base64
import csv
import json
import os
import pickle
import sys
from collections import Counter

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from vclip_jax.datasets import open_source
from vclip_jax.datasets.__main__ import main
from vclip_jax.datasets.formats import blobs, chinese_clip
from vclip_jax.datasets.listing import split_by_hash
from vclip_jax.datasets.own import generic

from .chinese_clip_files import database, databases, files, picture
from .listings import place, reasons

SEVENTEEN, EIGHTEEN, NINETEEN, TWENTY = (b"%d" % number * 30 for number in range(17, 21))
IMAGES = [(17, SEVENTEEN), (18, EIGHTEEN), (19, NINETEEN), (20, TWENTY)]
TEXTS = [(1, "青光眼", [17, 18]), (2, "视盘杯盘比增大", [17]), (3, "正常", [19])]


def pairs(listing):
    return {item.key: (item.caption, blobs.read(item.image)) for item in listing.items}


PAIRS = {
    "train/17/1": ("青光眼", SEVENTEEN),
    "train/17/2": ("视盘杯盘比增大", SEVENTEEN),
    "train/18": ("青光眼", EIGHTEEN),
    "train/19": ("正常", NINETEEN),
}


def both(layout):
    """A function that writes one of the layouts."""
    if layout == "lmdb":
        pytest.importorskip("lmdb")
        return lambda folder, *content: databases(folder / "lmdb", *content)
    return files


@pytest.mark.parametrize("layout", ["files", "lmdb"])
def test_a_pair_of_image_and_text_is_a_record(tmp_path, layout):
    write = both(layout)
    write(tmp_path, "train", IMAGES, TEXTS)
    write(tmp_path, "valid", [(17, b"other")], [(9, "糖网", [17])])
    write(tmp_path, "test", [("a", b"x")], [("t", "眼底", ["a"])])
    listing = generic.scan(tmp_path)
    more = {"valid/17": ("糖网", b"other"), "test/a": ("眼底", b"x")}
    assert pairs(listing) == PAIRS | more
    assert Counter(item.split for item in listing.items) == {
        "train": 4,
        "validation": 1,
        "test": 1,
    }
    assert reasons(listing) == {"image without text": 1}
    assert listing.classes == ()
    assert any("1 images have several texts" in guess for guess in listing.guesses)


@pytest.mark.parametrize("layout", ["files", "lmdb"])
def test_the_source_may_be_a_part(tmp_path, layout):
    both(layout)(tmp_path, "train", IMAGES, TEXTS)
    sources = {
        "files": [tmp_path / "train_imgs.tsv", tmp_path / "train_texts.jsonl"],
        "lmdb": [tmp_path / "lmdb", tmp_path / "lmdb/train"],
    }
    for source in sources[layout]:
        assert pairs(generic.scan(source)) == PAIRS


def test_files_are_read_before_the_database_of_the_same_split(tmp_path):
    files(tmp_path, "train", IMAGES, TEXTS)
    place(tmp_path, "lmdb/train/imgs/data.mdb", "lmdb/train/pairs/data.mdb", content=b"junk")
    place(tmp_path, "lmdb/train/imgs/lock.mdb", content=b"")
    place(tmp_path, "train_texts.tr.jsonl", "train_imgs.img_feat.jsonl", "train_keys.csv")
    listing = generic.scan(tmp_path)
    assert pairs(listing) == PAIRS
    assert (
        "LMDB databases of splits that are read from .tsv and .jsonl: lmdb/train."
        in listing.guesses
    )
    assert (
        "Files that are not read: train_imgs.img_feat.jsonl, train_keys.csv, train_texts.tr.jsonl."
        in listing.guesses
    )


def test_pairs_of_one_image_stay_in_one_split(tmp_path):
    texts = [(n, f"text {n}", [image]) for image in range(40) for n in (2 * image, 2 * image + 1)]
    files(tmp_path, "muge", [(n, b"%d" % n) for n in range(40)], texts)
    splits = {}
    for item in generic.scan(tmp_path).items:
        image = item.key.rpartition("/")[0]
        assert splits.setdefault(image, item.split) == item.split == split_by_hash(image)
    assert len(splits) == 40
    assert len(set(splits.values())) > 1


@pytest.mark.parametrize("layout", ["files", "lmdb"])
def test_what_is_in_no_pair_is_counted(tmp_path, layout):
    texts = [*TEXTS, (4, "nobody", [99]), (5, "", [19]), (2, "视盘杯盘比增大", [17])]
    both(layout)(tmp_path, "train", IMAGES, texts)
    listing = generic.scan(tmp_path)
    # An image with an empty and another text has two texts.
    assert {key.removesuffix("/3") for key in pairs(listing)} == set(PAIRS)
    assert reasons(listing) == {
        "image without text": 1,
        "missing image": 1,
        "empty caption": 1,
        "duplicate row": 1,
    }
    details = {reject.reason: reject.detail for reject in listing.rejects}
    assert details["missing image"].endswith("the text 4 names the image 99")


def test_lines_that_cannot_be_pairs_are_counted(tmp_path):
    files(tmp_path, "train", IMAGES, [*TEXTS, (7, "no image", [])])
    with open(tmp_path / "train_imgs.tsv", "a") as file:
        file.write("17\tQUFBQQ==\n")  # another image
        file.write(f"18\t{base64.b64encode(EIGHTEEN).decode()}\n")  # the same image
        file.write("no tab\n")
    with open(tmp_path / "train_texts.jsonl", "a") as file:
        file.write("no json\n")
    listing = generic.scan(tmp_path)
    assert set(pairs(listing)) == {"train/18", "train/19"}
    assert reasons(listing) == {
        "repeated image id": 4,  # two lines and two texts
        "duplicate row": 1,
        "not two columns": 1,
        "invalid text": 1,
        "text without image": 1,
        "image without text": 1,
    }


def test_one_text_id_for_two_texts_of_an_image_is_a_reject(tmp_path):
    files(tmp_path, "train", IMAGES[:1], [(1, "a", [17]), (1, "b", [17]), (2, "c", [17])])
    listing = generic.scan(tmp_path)
    assert {item.caption for item in listing.items} == {"a", "c"}
    assert reasons(listing) == {"second caption": 1}


def test_a_test_split_without_answers_is_noted(tmp_path):
    files(tmp_path, "train", IMAGES, TEXTS)
    files(tmp_path, "test", IMAGES, [(1, "a", []), (2, "b", [])])
    with open(tmp_path / "test_texts.jsonl", "a") as file:
        file.write('{"text_id": 3, "text": "c"}\n')
    listing = generic.scan(tmp_path)
    assert pairs(listing) == PAIRS
    assert reasons(listing) == {"image without text": 1}
    assert any(
        guess.startswith("test_imgs.tsv: 4 images and 3 texts are left out")
        for guess in listing.guesses
    )


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f / "train_texts.jsonl").unlink(), "the file of its texts, train_texts.jsonl"),
        (lambda f: (f / "train_imgs.tsv").unlink(), "the file of its images, train_imgs.tsv"),
        (lambda f: (f / "t.csv").write_text("image,label\na.jpg,x\n"), "t.csv list photographs"),
        (lambda f: files(f, "eval", IMAGES, TEXTS) or files(f, "test", IMAGES, TEXTS), "'eval'"),
    ],
)
def test_a_folder_that_is_not_clear_is_refused(tmp_path, spoil, message):
    files(tmp_path, "train", IMAGES, TEXTS)
    spoil(tmp_path)
    with pytest.raises(ValueError, match=message) as refusal:
        generic.scan(tmp_path)
    assert "\n" not in str(refusal.value)


def test_columns_cannot_be_named(tmp_path):
    files(tmp_path, "train", IMAGES, TEXTS)
    with pytest.raises(ValueError, match="have no columns, so no column 'text'"):
        generic.scan(tmp_path, caption_column="text")


def test_tables_of_other_content_are_tables(tmp_path):
    place(tmp_path, "a.jpg", "b.jpg")
    (tmp_path / "my_imgs.tsv").write_text("image\tlabel\na.jpg\tx\nb.jpg\ty\n")
    (tmp_path / "my_texts.jsonl").write_text(
        '{"image": "a.jpg", "caption": "A"}\n{"image": "b.jpg", "caption": "B"}\n'
    )
    listing = generic.scan(tmp_path)
    assert {item.key: item.caption for item in listing.items} == {"a.jpg": "A", "b.jpg": "B"}


def test_photographs_beside_the_files_are_counted(tmp_path):
    files(tmp_path, "train", IMAGES, TEXTS)
    place(tmp_path, "more/a.jpg")
    assert reasons(generic.scan(tmp_path))["missing row"] == 1


# --- Databases.


def test_without_the_package_the_files_are_read_and_the_database_is_refused(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "lmdb", None)
    files(tmp_path, "train", IMAGES, TEXTS)
    assert pairs(generic.scan(tmp_path)) == PAIRS
    place(tmp_path, "lmdb/valid/imgs/data.mdb", "lmdb/valid/pairs/data.mdb")
    with pytest.raises(ValueError, match=r"pip install 'vclip_jax\[lmdb\]'"):
        generic.scan(tmp_path)


class Evil:
    """An object whose pickle calls a function when it is loaded."""

    def __reduce__(self):
        return os.system, ("touch evil",)


def test_the_pickles_of_a_database_run_nothing(tmp_path, monkeypatch):
    pytest.importorskip("lmdb")
    monkeypatch.chdir(tmp_path)
    databases(tmp_path, "train", IMAGES, TEXTS)
    evil = {b"4": pickle.dumps(Evil()), b"5": pickle.dumps((17, 5, Evil())), b"6": b"\x80junk"}
    database(tmp_path / "train/pairs", evil | {b"num_samples": b"7", b"x": b"y"})
    listing = generic.scan(tmp_path)
    assert pairs(listing) == PAIRS
    assert reasons(listing) == {"invalid text": 4, "image without text": 1}
    assert any("which three numbers or texts do not need" in one.detail for one in listing.rejects)
    assert not (tmp_path / "evil").exists()


def test_pairs_of_an_earlier_larger_database_are_left_out(tmp_path):
    pytest.importorskip("lmdb")
    databases(tmp_path, "train", IMAGES, [*TEXTS, (4, "stale", [17]), (5, "old", [18])])
    databases(tmp_path, "train", IMAGES, TEXTS)  # Chinese-CLIP's script removes nothing
    listing = generic.scan(tmp_path)
    assert pairs(listing) == PAIRS
    assert any("2 pairs of an earlier, larger database" in guess for guess in listing.guesses)


def test_a_database_that_lacks_entries_is_noted(tmp_path):
    pytest.importorskip("lmdb")
    databases(tmp_path, "train", IMAGES, TEXTS)
    database(tmp_path / "train/pairs", {b"num_samples": b"10"})
    database(tmp_path / "train/imgs", {b"num_images": b"unknown", b"\xff": b"AAAA"})
    listing = generic.scan(tmp_path)
    assert pairs(listing) == PAIRS
    assert reasons(listing) == {"not an id": 1, "image without text": 1}
    assert any("says that it has 10 pairs, and it has 4" in one for one in listing.guesses)
    assert any("train/imgs has no num_images" in one for one in listing.guesses)


@pytest.mark.parametrize("keep", [0, 100, 4096, 8192, 9000])
def test_a_damaged_database_is_one_line(tmp_path, keep):
    pytest.importorskip("lmdb")
    databases(tmp_path, "train", [(n, bytes(9000)) for n in range(99)], TEXTS)
    path = tmp_path / "train/imgs/data.mdb"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ValueError, match=r"train/imgs/data\.mdb") as refusal:
        generic.scan(tmp_path)
    assert "\n" not in str(refusal.value)


def test_a_database_of_other_content_is_noted(tmp_path):
    place(tmp_path, "x/a.jpg", "y/b.jpg")
    place(tmp_path, "other/data.mdb", "other/lock.mdb")
    notes = generic.scan(tmp_path).guesses
    assert any("Files that are not read: 1 data.mdb" in note for note in notes)
    place(tmp_path / "alone", "imgs/data.mdb")
    with pytest.raises(ValueError, match=r"imgs/data\.mdb is not one of Chinese-CLIP's imgs and"):
        generic.scan(tmp_path / "alone")


# --- Building and exporting.


def records_of(name, data, splits):
    return {
        split: Counter((record["caption"], record["image"]) for record in source)
        for split in splits
        for source in [open_source(name, data, split)]
    }


@pytest.mark.parametrize("layout", ["files", "lmdb"])
def test_a_dataset_is_built_exported_and_built_again(tmp_path, layout, capsys):
    images = [(n, picture(n)) for n in range(6)]
    texts = [(1, "青光眼", [0, 1, 2]), (2, "视盘“杯盘比”增大\n双眼", [0]), (3, "正常", [4, 5])]
    write = both(layout)
    write(tmp_path / "source", "train", images, texts)
    write(tmp_path / "source", "valid", [(1, picture(9))], [(1, "糖网", [1])])
    write(tmp_path / "source", "test", [(1, b"junk")], [(1, "糖网", [1])])
    data = str(tmp_path / "data")
    build = ["build", "generic", "--data-dir", data, "--max-side", "0", "--source"]
    assert main([*build, str(tmp_path / "source"), "--name", "one"]) == 0
    printed = capsys.readouterr().out
    assert "9 listed = 7 kept + 2 rejected" in printed
    assert "rejected, not an image: 1" in printed
    assert "rejected, image without text: 1" in printed

    export = ["export", "one", "--data-dir", data, "--format", "chinese-clip", "--out"]
    assert main([*export, str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "train: 6 records as 5 images, 3 texts and 6 pairs" in printed
    assert "valid: 1 records as 1 images, 1 texts and 1 pairs" in printed
    names = {path.name for path in (tmp_path / "out").iterdir()}
    parts = ("imgs.tsv", "texts.jsonl", "keys.csv")
    assert names == {f"{split}_{part}" for split in ("train", "valid") for part in parts}

    assert main([*build, str(tmp_path / "out"), "--name", "two"]) == 0
    assert "7 listed = 7 kept + 0 rejected" in capsys.readouterr().out
    splits = ("train", "validation")
    assert records_of("one", data, splits) == records_of("two", data, splits)


def test_files_that_are_there_are_not_replaced(tmp_path, capsys):
    files(tmp_path / "source", "train", [(n, picture(n)) for n in range(3)], [(1, "a", [0, 1, 2])])
    before = (tmp_path / "source/train_imgs.tsv").read_bytes()
    data = ["--data-dir", str(tmp_path / "data")]
    assert main(["build", "generic", "--source", str(tmp_path / "source"), *data]) == 0
    out = ["--out", str(tmp_path / "source")]
    assert main(["export", "generic", *data, "--format", "chinese-clip", *out]) == 1
    assert "train_imgs.tsv is there already: choose another --out" in capsys.readouterr().err
    assert (tmp_path / "source/train_imgs.tsv").read_bytes() == before


def test_an_empty_split_is_no_table(tmp_path):
    files(tmp_path, "train", IMAGES, TEXTS)
    files(tmp_path, "valid", [], [])
    assert pairs(generic.scan(tmp_path)) == PAIRS


@pytest.mark.parametrize("line", ['{"text": "青光眼", "image_ids": [17]}', '["a"]', "{}", "\xe9"])
def test_texts_that_cannot_be_read_are_rejects_and_not_a_test_split(tmp_path, line):
    files(tmp_path, "train", IMAGES[:2], [(1, "正常", [19])])
    files(tmp_path, "valid", IMAGES[:2], TEXTS[:1])
    (tmp_path / "train_texts.jsonl").write_text(f"{line}\n")
    files(tmp_path, "test", IMAGES[:2], [(1, "正常", [])])
    listing = generic.scan(tmp_path)
    assert reasons(listing)["image without text"] == 2
    assert any("test_imgs.tsv: 2 images and 1 texts are left out" in one for one in listing.guesses)


def test_bad_base64_is_a_reject_of_the_build(tmp_path, capsys):
    files(tmp_path / "source", "train", [(n, picture(n)) for n in range(3)], [(1, "a", [0, 1, 2])])
    path = tmp_path / "source/train_imgs.tsv"
    lines = path.read_text().splitlines()
    lines[1] = lines[1][:-7] + "?" + lines[1][-6:]
    path.write_text("\n".join(lines))
    data = str(tmp_path / "data")
    source = ["--source", str(tmp_path / "source")]
    assert main(["build", "generic", *source, "--data-dir", data]) == 0
    assert "rejected, unreadable file: 1" in capsys.readouterr().out
    rejects = (tmp_path / "data/generic/512px-q92/2.0.0/rejects.jsonl").read_text()
    assert "not base64" in json.loads(rejects)["detail"]


def test_an_anonymous_dataset_is_exported_without_keys(tmp_path):
    files(tmp_path / "source", "train", [(n, picture(n)) for n in range(3)], [(1, "a", [0, 1, 2])])
    data = ["--data-dir", str(tmp_path / "data")]
    build = ["build", "generic", "--source", str(tmp_path / "source"), *data, "--anonymous"]
    assert main(build) == 0
    out = ["--out", str(tmp_path / "out"), "--split", "train"]
    assert main(["export", "generic", *data, "--format", "chinese-clip", *out]) == 0
    names = {path.name for path in (tmp_path / "out").iterdir()}
    assert names == {"train_imgs.tsv", "train_texts.jsonl"}


def test_what_the_format_has_no_place_for_is_told(tmp_path, capsys):
    place(tmp_path / "source/train", "a.jpg", content=picture(1))
    place(tmp_path / "source/train", "b.jpg", "c.jpg", content=picture(2))
    rows = ["image,label,patient_id", "train/a.jpg,x,p", "train/b.jpg,y,q", "train/c.jpg,y,q"]
    (tmp_path / "source/t.csv").write_text("\n".join(rows))
    data = ["--data-dir", str(tmp_path / "data")]
    assert main(["build", "generic", "--source", str(tmp_path / "source"), *data]) == 0
    capsys.readouterr()
    out = ["--out", str(tmp_path / "out")]
    assert main(["export", "generic", *data, "--format", "chinese-clip", *out]) == 0
    printed = capsys.readouterr().out
    assert "train: 3 records as 2 images, 2 texts and 2 pairs" in printed
    assert "1 records repeat the image and the caption of another one" in printed
    assert "classes, patient have no place in this format" in printed


def test_squares_are_not_exported(tmp_path, capsys):
    files(tmp_path / "source", "train", [(n, picture(n)) for n in range(3)], [(1, "a", [0, 1, 2])])
    data = ["--data-dir", str(tmp_path / "data")]
    build = ["build", "generic", "--source", str(tmp_path / "source"), *data, "--fit", "pad"]
    assert main([*build, "--ready", "40"]) == 0
    out = ["--out", str(tmp_path / "out")]
    assert main(["export", "generic", *data, "--format", "chinese-clip", *out]) == 1
    assert "chinese-clip cannot record that it holds squares" in capsys.readouterr().err


WORDS = st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=12)
CAPTIONS = WORDS.map(lambda text: f"眼 {text}".strip())
ROWS = st.lists(st.tuples(st.integers(0, 4), CAPTIONS), min_size=1, max_size=12, unique=True)


@settings(deadline=None, max_examples=60, suppress_health_check=[HealthCheck.too_slow])
@given(ROWS)
def test_what_was_written_is_read_with_the_same_captions_of_each_key(tmp_path_factory, rows):
    folder = tmp_path_factory.mktemp("written")
    records = [
        {"key": f"key {number}", "image": b"image %d" % image, "caption": text, "label": -1}
        for number, (image, text) in enumerate(rows)
    ]
    chinese_clip.write(records, folder, "train")
    listing = generic.scan(folder)
    assert not listing.rejects
    found = Counter((item.caption, blobs.read(item.image)) for item in listing.items)
    assert found == Counter((one["caption"], one["image"]) for one in records)
    texts = {one.id: one.text for one in chinese_clip.texts(folder / "train_texts.jsonl")}
    images = {
        one.id: blobs.read(one.blob) for one in chinese_clip.images(folder / "train_imgs.tsv")
    }
    with open(folder / "train_keys.csv", newline="") as file:
        keys = {row["key"]: row for row in csv.DictReader(file)}
    for record in records:
        row = keys[record["key"]]
        assert texts[row["text_id"]] == record["caption"]
        assert images[row["image_id"]] == record["image"]
