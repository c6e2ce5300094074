"""Building: complete, the same bytes whatever happens, and every reject accounted for."""

import hashlib
import itertools
import json
import pickle
import shutil
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from vclip_jax.data.images.decode import read_rgb
from vclip_jax.datasets import DatasetError, open_source
from vclip_jax.datasets.built import built_datasets
from vclip_jax.datasets.ingest import build, shards
from vclip_jax.datasets.ingest.store import Storage
from vclip_jax.datasets.listing import Blob, Item, Listing, Reject
from vclip_jax.files.open_files import read_record

CLASSES = ("a", "b")
SHARD_BYTES = 30_000
"""Of the files that stay; `BUILD` below has it, too."""


@pytest.fixture(scope="module")
def source(tmp_path_factory) -> Path:
    """90 PNGs, number 3 of which is none, number 5 is greyscale, 7 and 8 are the same."""
    folder = tmp_path_factory.mktemp("source")
    rng = np.random.default_rng(0)
    for index in range(90):
        coarse = rng.integers(0, 256, (10, 12, 3)).astype(np.uint8)
        pixels = np.kron(coarse, np.ones((8, 8, 1), np.uint8))
        image = Image.fromarray(pixels)
        (image.convert("L") if index == 5 else image).save(folder / f"{index}.png")
    (folder / "3.png").write_bytes(b"this is no image")
    (folder / "8.png").write_bytes((folder / "7.png").read_bytes())
    return folder


def make_listing(source: Path) -> Listing:
    items = [
        Item(
            key=f"eye/{index:02}",
            split="train" if index < 70 else "test",
            image=Blob(str(source / f"{index}.png")),
            caption=f"眼底{index % 4}",
            label=index % 3 - 1,
            values=(index, index / 2, f"column {index}"),
        )
        for index in range(90)
    ]
    rejects = [Reject("eye/90", "missing image", "90.png")]
    columns = {"number": int, "half": float, "words": str}
    return Listing("toy", CLASSES, items, rejects, columns, notes=["Made in a test."])


@pytest.fixture
def listing(source) -> Listing:
    return make_listing(source)


@pytest.fixture(autouse=True)
def small_shards(monkeypatch):
    monkeypatch.setattr(build, "RECORDS_PER_SHARD", 16)
    monkeypatch.setattr(build, "SHARD_BYTES", SHARD_BYTES)


def digests(folder: Path) -> dict[str, str]:
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in sorted(folder.iterdir())}


def records_of(folder: Path) -> list[tuple]:
    """All records in stored order."""
    source = open_source("toy", folder.parents[2], "train+test")
    return [tuple(record.values()) for record in source]


@pytest.fixture(scope="module")
def built(tmp_path_factory, source):
    """An undisturbed build in this process: its folder, and the digests of its files."""
    patch = pytest.MonkeyPatch()
    patch.setattr(build, "RECORDS_PER_SHARD", 16)
    patch.setattr(build, "SHARD_BYTES", SHARD_BYTES)
    folder = build.build(make_listing(source), tmp_path_factory.mktemp("data"), workers=1)
    patch.undo()
    return folder, digests(folder)


def test_records_hold_what_the_listing_says(built, source):
    folder, _ = built
    records = {r["key"]: r for r in open_source("toy", folder.parents[2], "train+test")}
    assert set(records) == {f"eye/{i:02}" for i in range(90) if i not in (3, 5)}
    record = records["eye/11"]
    assert (record["caption"], record["label"]) == ("眼底3", 1)
    original = read_rgb((source / "11.png").read_bytes())
    assert np.abs(read_rgb(record["image"]).astype(int) - original).mean() < 3


def test_tfds_reads_all_columns_and_splits(built):
    builder = tfds.builder_from_directory(str(built[0]))
    assert {s: info.num_examples for s, info in builder.info.splits.items()} == {
        "train": 68,
        "test": 20,
    }
    assert builder.info.features["label"].names == list(CLASSES)
    examples = {example["number"]: example for example in builder.as_data_source("test")}
    assert sorted(examples) == list(range(70, 90))
    example = examples[70]
    assert example["half"] == 35.0
    assert example["words"].decode() == "column 70"
    assert example["image"].shape == (80, 96, 3)


def test_kept_and_rejected_make_up_what_is_listed(built):
    folder, _ = built
    rejects = [json.loads(line) for line in (folder / "rejects.jsonl").read_text().splitlines()]
    assert {reject["key"]: reject["reason"] for reject in rejects} == {
        "eye/90": "missing image",
        "eye/03": "not an image",
        "eye/05": "greyscale",
    }
    card = json.loads((folder / "card.json").read_text())
    assert card["listed"] == 91 == card["kept"] + len(rejects)
    assert card["rejected"] == {"missing image": 1, "not an image": 1, "greyscale": 1}


def test_the_card_tells_classes_sizes_duplicates_and_captions(built):
    folder, _ = built
    card = json.loads((folder / "card.json").read_text())
    assert card["splits"]["test"]["classes"] == {"no class": 6, "a": 7, "b": 7}
    assert card["sizes"] == {"96 x 80": 88}
    assert card["identical_images"] == {
        "groups": 1,
        "across_splits": 0,
        "across_labels": 1,
        "examples": [["eye/07", "eye/08"]],
    }
    assert card["captions"]["unique"] == 4
    assert card["captions"]["characters"] == {"least": 3, "median": 3, "most": 3}
    text = (folder / "card.md").read_text()
    assert "91 listed = 88 kept + 3 rejected" in text
    assert "Made in a test." in text
    assert Image.open(folder / "samples.png").size == (6 * 160, 3 * 178)


def test_processes_make_the_same_bytes(built, listing, tmp_path):
    folder = build.build(listing, tmp_path, workers=2)
    assert digests(folder) == built[1]


def test_the_records_checksums_are_written_down(built):
    lines = (built[0] / "records.sha256").read_text().splitlines()
    sums = {name: digest for digest, name in (line.split("  ") for line in lines)}
    assert sums == {n: d for n, d in built[1].items() if ".array_record-" in n}


@pytest.mark.parametrize("known", [True, False], ids=["checksums", "earlier version"])
def test_a_digest_is_of_the_content_and_not_of_the_place(built, listing, tmp_path, known):
    def opened(data_dir, split="train"):
        if not known:
            [sums] = data_dir.rglob("records.sha256")
            sums.unlink()
        return open_source("toy", data_dir, split)

    def copy(name):
        shutil.copytree(built[0].parents[2], tmp_path / name)
        return tmp_path / name

    train = opened(copy("here")).digest()
    assert opened(copy("there"), "train[:10]").digest() == train
    assert opened(copy("other"), "test").digest() != train
    listing.items[9] = replace(listing.items[9], label=listing.items[9].label + 1)
    build.build(listing, tmp_path / "relabelled", workers=1)
    assert opened(tmp_path / "relabelled").digest() != train


def test_a_finished_build_needs_no_right_to_write(built, listing, tmp_path):
    folder = build.build(listing, tmp_path, workers=1)
    lock = folder.parent / ".lock"
    lock.unlink()
    lock.mkdir()  # nobody, not even root, can open it for writing
    assert build.build(listing, tmp_path, workers=1) == folder


def test_a_finished_build_is_left_alone(listing, tmp_path, monkeypatch):
    folder = build.build(listing, tmp_path, workers=1)
    monkeypatch.setattr(shards, "make_shard", None)
    assert build.build(listing, tmp_path, workers=1) == folder
    assert [name for name, _ in built_datasets(tmp_path)] == ["toy/512px-q92"]


@contextmanager
def made_shards(monkeypatch, most=None):
    """The paths of the shards that are made, until it is interrupted after `most`."""
    make_shard, made = shards.make_shard, []

    def make(shard, tick):
        if len(made) == most:
            raise KeyboardInterrupt
        made.append(shard.path)
        return make_shard(shard, tick)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "make_shard", make)
        yield made


def test_an_interrupted_build_goes_on_with_the_missing_shards(
    built, listing, tmp_path, monkeypatch
):
    with made_shards(monkeypatch, most=3) as first, pytest.raises(KeyboardInterrupt):
        build.build(listing, tmp_path, workers=1)
    assert built_datasets(tmp_path) == []
    with made_shards(monkeypatch) as rest:
        folder = build.build(listing, tmp_path, workers=1)
    assert (len(first), len(rest)) == (3, 4)
    assert not set(first) & set(rest)
    assert digests(folder) == built[1]


BUILD = """
import pickle, sys
from vclip_jax.datasets.ingest import build
build.RECORDS_PER_SHARD = 16
build.SHARD_BYTES = 30_000
build.build(pickle.load(open(sys.argv[1], "rb")), sys.argv[2], workers=1)
"""


def test_a_killed_build_ends_with_the_same_bytes(built, listing, tmp_path):
    (tmp_path / "listing").write_bytes(pickle.dumps(listing))
    notes = tmp_path / "toy/512px-q92/incomplete.2.0.0/notes"
    for _ in range(2):
        before = len(list(notes.glob("*.json")))
        arguments = [sys.executable, "-c", BUILD, tmp_path / "listing", tmp_path]
        process = subprocess.Popen(arguments, stderr=subprocess.DEVNULL)
        while process.poll() is None and len(list(notes.glob("*.json"))) <= before:
            time.sleep(0.001)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert digests(build.build(listing, tmp_path, workers=1)) == built[1]


def test_a_build_of_other_options_starts_anew(built, listing, source, tmp_path, capsys):
    unfinished = tmp_path / "toy/512px-q92/incomplete.2.0.0"
    (unfinished / "data").mkdir(parents=True)
    (unfinished / "plan.sha256").write_text("of another listing")
    (unfinished / "data/left over").write_text("")
    assert digests(build.build(listing, tmp_path, workers=1)) == built[1]
    assert "starting again" in capsys.readouterr().err


def test_a_build_killed_while_it_orders_ends_with_the_same_bytes(
    built, listing, tmp_path, monkeypatch
):
    count = 0

    def interrupted(*arguments):
        nonlocal count
        count += 1
        if count == 60:
            raise KeyboardInterrupt
        return read_record(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(shards, "read_record", interrupted)
        with pytest.raises(KeyboardInterrupt):
            build.build(listing, tmp_path, workers=1)
    assert built_datasets(tmp_path) == []
    monkeypatch.setattr(shards, "make_shard", None)  # what was made is not made again
    assert digests(build.build(listing, tmp_path, workers=1)) == built[1]


def test_the_order_of_the_source_does_not_matter(built, listing, tmp_path):
    listing.items = listing.items[::-1]
    assert records_of(build.build(listing, tmp_path, workers=1)) == records_of(built[0])


def test_a_folder_for_each_class_is_not_stored_by_class(listing, tmp_path):
    listing.items = sorted(listing.items, key=lambda item: item.label)
    folder = build.build(listing, tmp_path, workers=1)
    labels = [record["label"] for record in open_source("toy", tmp_path, "train")]
    changes = sum(a != b for a, b in itertools.pairwise(labels))
    assert changes > len(labels) / 3  # two of three are to be expected, stored by class there are 2
    keys = [record["key"] for record in open_source("toy", tmp_path, "train")]
    assert (folder / "keys-train.txt").read_text().split() == keys


def test_another_seed_is_another_dataset_in_another_order(built, listing, tmp_path):
    folder = build.build(listing, tmp_path, workers=1, seed=3)
    assert folder.parent.name == "512px-q92-seed3"
    other, records = records_of(folder), records_of(built[0])
    assert other != records
    assert sorted(other) == sorted(records)
    assert json.loads((folder / "card.json").read_text())["order_seed"] == 3
    assert json.loads((built[0] / "card.json").read_text())["order_seed"] == 0
    with pytest.raises(ValueError, match="must not be negative, got -1"):
        build.build(listing, tmp_path, seed=-1)


def test_a_split_of_rejects_alone_is_none(listing, tmp_path):
    for index in range(70, 90):
        missing = Blob(f"/nowhere/{index}.png")
        listing.items[index] = Item(f"eye/{index}", "test", missing, "", 0, (0, 0.0, ""))
    build.build(listing, tmp_path, workers=1, max_rejects=0.5)
    with pytest.raises(DatasetError, match="has no split 'test': it has train"):
        open_source("toy", tmp_path, "test")


def test_too_many_rejects_fail_with_reasons_and_an_example(listing, tmp_path, monkeypatch):
    monkeypatch.setattr(build, "FEW_REJECTS", 2)
    message = r"3 of 91 are rejected, more than the 2 that .* allows.*greyscale: 1.*5\.png"
    with pytest.raises(DatasetError, match=message):
        build.build(listing, tmp_path, workers=1, max_rejects=0.01)
    assert built_datasets(tmp_path) == []
    (rejects,) = tmp_path.rglob("rejects.jsonl")
    assert len(rejects.read_text().splitlines()) == 3
    # What was made is not made again.
    monkeypatch.setattr(shards, "make_shard", None)
    build.build(listing, tmp_path, workers=1, max_rejects=0.1)
    assert [name for name, _ in built_datasets(tmp_path)] == ["toy/512px-q92"]


def test_a_strict_build_takes_no_unusable_image_but_leaves_the_reader_its_rejects(
    listing, source, tmp_path
):
    with pytest.raises(DatasetError, match=r"not an image: 1, greyscale: 1, such as .*5\.png"):
        build.build(listing, tmp_path, workers=1, strict=True)
    assert built_datasets(tmp_path) == []
    listing.items = [item for item in listing.items if item.key not in ("eye/03", "eye/05")]
    build.build(listing, tmp_path, workers=1, strict=True)
    assert [name for name, _ in built_datasets(tmp_path)] == ["toy/512px-q92"]


def test_a_shard_of_rejects_alone_does_no_harm(listing, tmp_path):
    for index in range(16, 32):
        missing = Blob(f"/nowhere/{index}.png")
        listing.items[index] = Item(f"eye/{index}", "train", missing, "", 0, (0, 0.0, ""))
    build.build(listing, tmp_path, workers=1, max_rejects=0.5)
    keys = [record["key"] for record in open_source("toy", tmp_path, "train")]
    assert len(keys) == 70 - 2 - 16
    assert "eye/40" in keys


def test_nothing_usable_is_an_error(tmp_path):
    empty = Listing("toy", CLASSES, [], [Reject("x", "missing image", "x.png")])
    with pytest.raises(DatasetError, match=r"no usable photograph.*missing image: 1, such as x\.p"):
        build.build(empty, tmp_path)


ANONYMOUS = Storage(anonymous=True)


def named(folder: Path, stems: int = 90) -> Listing:
    """A listing of which every part holds the names of people, one photograph of which is none."""
    items = []
    for index in range(stems):
        path = folder / f"MUELLER_{index:03}.png"
        pixels = np.random.default_rng(index).integers(0, 256, (40, 40, 3)).astype(np.uint8)
        Image.fromarray(pixels).save(path)
        items.append(
            Item(
                f"MUELLER_{index:03}",
                "train",
                Blob(str(path)),
                f"眼底{index}",
                0,
                (index, f"MUELLER {index}", index * 10),
            )
        )
    Path(items[3].image.path).write_bytes(b"no image")
    Path(items[4].image.path).unlink()
    rejects = [Reject("MUELLER_900", "missing image", "MUELLER_900.png")]
    columns = {"patient": int, "words": str, "age": int}
    notes = ["MUELLER_007 is there twice."]
    return Listing("toy", CLASSES, items, rejects, columns, notes=notes)


def test_an_anonymous_build_holds_no_name(tmp_path):
    (tmp_path / "MUELLER").mkdir()
    listing = named(tmp_path / "MUELLER")
    folder = build.build(listing, tmp_path / "data", ANONYMOUS, workers=1)
    assert folder.parent.name == "512px-q92-anonymous"
    for path in (tmp_path / "data").rglob("*"):
        assert b"MUELLER" not in (path.read_bytes() if path.is_file() else b"")
        assert "MUELLER" not in str(path.relative_to(tmp_path))
    rejects = [json.loads(line) for line in (folder / "rejects.jsonl").read_text().splitlines()]
    reasons = sorted(reject["reason"] for reject in rejects)
    assert reasons == ["missing image", "not an image", "unreadable file"]
    assert {reject["detail"] for reject in rejects} == {""}
    info = json.loads((folder / "features.json").read_text())["featuresDict"]["features"]
    assert sorted(info) == ["age", "caption", "image", "key", "label", "patient"]


def test_who_has_the_names_cannot_find_the_records_of_an_anonymous_build(tmp_path):
    (tmp_path / "source").mkdir()
    listing = named(tmp_path / "source")
    orders, keys = [], []
    for place in ("one", "two"):
        build.build(listing, tmp_path / place, ANONYMOUS, workers=1)
        records = list(open_source("toy", tmp_path / place, "train"))
        orders.append([int(record["caption"][2:]) for record in records])
        keys.append([record["key"] for record in records])
    # Nothing about order or keys follows from the names: a second build of them has others.
    assert sorted(orders[0]) == sorted(orders[1])
    assert orders[0] != orders[1]
    assert sorted(orders[0]) not in orders
    assert not set(keys[0]) & set(keys[1])
    # The order follows from the keys, so that it says nothing more than they do.
    places = [shards.Place(key, "", 0) for key in sorted(keys[0])]
    assert keys[0] == [place.key for place in shards.shuffled(places, seed=0)]


def test_an_anonymous_build_goes_on_and_its_secret_ends_with_it(tmp_path, monkeypatch):
    monkeypatch.setattr(build, "RECORDS_PER_SHARD", 20)
    (tmp_path / "source").mkdir()
    listing = named(tmp_path / "source")
    with made_shards(monkeypatch, most=2) as before, pytest.raises(KeyboardInterrupt):
        build.build(listing, tmp_path / "data", ANONYMOUS, workers=1)
    (secret,) = (tmp_path / "data").rglob("secret")
    assert secret.stat().st_mode & 0o777 == 0o600
    kept = secret.read_bytes()
    with made_shards(monkeypatch) as again:
        build.build(listing, tmp_path / "data", ANONYMOUS, workers=1)
    assert len(before) == 2
    assert len(again) == 3
    assert not set(before) & set(again)
    assert (
        len({record["caption"] for record in open_source("toy", tmp_path / "data", "train")}) == 88
    )
    for path in (tmp_path / "data").rglob("*"):
        assert path.is_dir() or kept not in path.read_bytes()
        assert path.name != "secret"


def test_a_flipped_bit_is_reported_by_the_records_name_and_never_read(listing, tmp_path):
    folder = build.build(listing, tmp_path, workers=1)
    originals = list(open_source("toy", tmp_path, "test[1:]"))
    path = folder / "toy-test.array_record-00000-of-00002"
    whole = path.read_bytes()
    refused = 0
    # A small file is padding for the most part.
    for at in np.linspace(0, len(whole) // 8, 40).astype(int):
        path.write_bytes(whole[:at] + bytes([whole[at] ^ 0x40]) + whole[at + 1 :])
        try:
            source = open_source("toy", tmp_path, "test[1:]")
        except DatasetError:
            continue  # it hit the file's own header
        for index, original in enumerate(originals):
            try:
                assert source[index] == original  # it hit padding, or another record
            except DatasetError as error:
                refused += 1
                where = f"toy:test[1:]: {original['key']}, record {index + 1} of {path} is damaged"
                if where not in str(error):
                    raise
    assert refused > 20


def test_a_truncated_file_is_named(listing, tmp_path):
    folder = build.build(listing, tmp_path, workers=1)
    path = folder / "toy-test.array_record-00001-of-00002"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(DatasetError, match="toy"):
        list(open_source("toy", tmp_path, "test"))


@pytest.mark.slow
def test_beam_makes_the_same_bytes(built, listing, tmp_path):
    pytest.importorskip("apache_beam", reason="needs the [beam] extra")
    folder = build.build(listing, tmp_path, beam=["--runner=DirectRunner"])
    assert digests(folder) == built[1]


def test_a_source_that_has_changed_since_is_noticed(listing, tmp_path):
    folder = build.build(listing, tmp_path, workers=1)
    listing.items[3] = replace(listing.items[3], label=listing.items[3].label + 1)
    with pytest.raises(DatasetError, match="was built from other photographs, captions, labels"):
        build.build(listing, tmp_path, workers=1)
    assert (folder / "card.json").exists()


def test_photographs_replaced_under_their_names_are_noticed(listing, source, tmp_path):
    shutil.copytree(source, tmp_path / "mine")

    def here(name):
        return str(tmp_path / "mine" / Path(name).relative_to(source))

    items = [replace(one, image=Blob(here(one.image.path))) for one in listing.items]
    mine = replace(listing, items=items)
    folder = build.build(mine, tmp_path, workers=1)
    assert build.build(mine, tmp_path, workers=1) == folder
    shutil.copy(items[1].image.path, items[0].image.path)
    with pytest.raises(DatasetError, match="was built from other photographs"):
        build.build(mine, tmp_path, workers=1)
    # Datasets of earlier versions note no sizes.
    noted = folder / "listing.sha256"
    noted.write_text(noted.read_text().splitlines()[0])
    assert build.build(mine, tmp_path, workers=1) == folder


def test_an_order_of_the_classes_that_a_dataset_lacks_is_noticed(listing, tmp_path):
    build.build(listing, tmp_path, workers=1)
    with pytest.raises(DatasetError, match="labels or options"):
        build.build(replace(listing, ordered=not listing.ordered), tmp_path, workers=1)


@pytest.mark.parametrize("place", [".lock", "incomplete.2.0.0", "incomplete.2.0.0/data/card.md"])
def test_nothing_is_written_through_a_link_of_another(listing, tmp_path, place):
    other, link = tmp_path / "other", tmp_path / "data/toy/512px-q92" / place
    other.write_text("mine")
    link.parent.mkdir(parents=True)
    link.symlink_to(other)
    with pytest.raises(ValueError, match=f"{link.name} is a symbolic link"):
        build.build(listing, tmp_path / "data", workers=1)
    assert other.read_text() == "mine"
