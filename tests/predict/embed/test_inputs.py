"""The photographs that `vclip embed` takes: which are meant, their keys, splits and digests."""

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from vclip_jax import datasets
from vclip_jax.data.record import FACTS
from vclip_jax.datasets import DatasetError
from vclip_jax.datasets.ingest import build
from vclip_jax.datasets.listing import Blob, Item, Listing
from vclip_jax.predict.embed import inputs

DATA = {"image_size": 32, "fit": "squash", "decode": "exact", "enhance": False}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory, write_idrid) -> Path:
    path = tmp_path_factory.mktemp("data")
    source = write_idrid(tmp_path_factory.mktemp("idrid"), train=6, test=4)
    datasets.prepare("idrid", str(source), path)
    return path


@pytest.fixture
def folder(tmp_path) -> Path:
    """A folder with a.png, b.png in a subfolder, and a file that is no picture."""
    root = tmp_path / "photographs"
    (root / "sub").mkdir(parents=True)
    for name, level in (("a.png", 90), ("sub/b.png", 150)):
        Image.new("RGB", (40, 40), (level, level // 2, 20)).save(root / name)
    (root / "c.jpg").write_bytes(b"\xff\xd8 no picture")
    return root


def keys(found: inputs.Photographs) -> list[str]:
    return [found.look(index, DATA).row["key"] for index in range(found.count)]


# --- Which are meant.


def test_a_name_is_a_dataset_if_it_is_built_and_files_if_they_exist(data_dir, folder, monkeypatch):
    monkeypatch.chdir(folder)
    built = inputs.find(["idrid"], str(data_dir))
    assert built.said == "10 photographs of the built dataset idrid/512px-q92, test+train"
    assert inputs.find([str(folder)], str(data_dir)).said == f"3 photographs of the folder {folder}"
    assert inputs.find(["a.png"], str(data_dir)).said == "1 photographs of the file a.png"
    assert inputs.find(["a.png", "sub"], str(data_dir)).said == "2 photographs of 2 inputs"
    assert inputs.find(["-"], str(data_dir), stdin=["a.png\n"]).count == 1


def test_a_name_that_may_mean_both_is_refused(data_dir, folder, monkeypatch):
    monkeypatch.chdir(folder)
    (folder / "sub").rename("idrid")
    with pytest.raises(ValueError, match="both a file or folder here and a built dataset") as error:
        inputs.find(["idrid"], str(data_dir))
    assert "\n" not in str(error.value)
    assert inputs.find(["./idrid"], str(data_dir)).about["dataset"] is None
    assert inputs.find(["idrid"], str(data_dir), "test").about["split"] == "test"


@pytest.mark.parametrize(
    ("given_inputs", "split", "message"),
    [
        (["nowhere"], None, "nowhere: there is no such file or folder here, and no such dataset"),
        (["a.png", "nowhere"], None, "nowhere: there is no such file"),
        (["nowhere"], "test", "'nowhere' is not in"),
        (["idrid", "fives"], "test", "--split is for one built dataset"),
        (["idrid"], "validation", "has no split 'validation'"),
        (["idrid"], "test[:0]", "the split test\\[:0\\] has no photograph"),
        (["idrid"], "test+test[:50%]", "names records twice"),
        (["{data}"], None, "holds built datasets, not photographs: name a dataset, such as idrid/"),
        (["{data}/idrid"], None, "holds built datasets, not photographs"),
    ],
)
def test_what_cannot_be_embedded_is_one_line(
    data_dir, folder, monkeypatch, given_inputs, split, message
):
    monkeypatch.chdir(folder)
    words = [word.format(data=data_dir) for word in given_inputs]
    with pytest.raises((ValueError, DatasetError), match=message) as error:
        inputs.find(words, str(data_dir), split)
    assert "\n" not in str(error.value)


# --- Rows of a dataset.


def test_all_splits_are_the_default_and_each_row_names_its_own(data_dir):
    found = inputs.find(["idrid"], str(data_dir))
    splits = found.about["split"].split("+")
    assert splits == sorted(splits)
    rows = [found.look(index, DATA).row for index in range(found.count)]
    assert {row["split"] for row in rows} == set(splits)
    for split in splits:
        records = list(datasets.open_source("idrid", data_dir, split))
        own = [row for row in rows if row["split"] == split]
        assert [row["key"] for row in own] == [record["key"] for record in records]
        names = found.about["classes"]
        assert [row["label"] for row in own] == [names[record["label"]] for record in records]


def test_slices_are_counted_within_their_splits(data_dir):
    train, test = (len(datasets.open_source("idrid", data_dir, one)) for one in ("train", "test"))
    found = inputs.find(["idrid"], str(data_dir), "test[:50%]+train")
    rows = [found.look(index, DATA).row["split"] for index in range(found.count)]
    assert rows == ["test"] * (test // 2) + ["train"] * train
    both_ends = inputs.find(["idrid"], str(data_dir), "test[:25%]+test[75%:]")
    assert both_ends.count == 2


def _listed(folder: Path, columns, values, name="generic") -> inputs.Photographs:
    image = folder / "one.png"
    Image.new("RGB", (64, 64), (180, 90, 40)).save(image)
    items = [
        Item(f"k{row}", "test", Blob(str(image)), f"caption {row}", row - 1, cells)
        for row, cells in enumerate(values)
    ]
    listing = Listing(name=name, classes=("a", "b"), items=items, columns=columns)
    build.build(listing, folder / "data", workers=1)
    return inputs.find([name], str(folder / "data"))


def test_a_row_has_label_patient_facts_and_findings_and_what_is_unknown_is_none(tmp_path):
    kinds = {"patient": str, "eye": str, "age": int, "findings/糖网 DR": int, "findings/AMD": int}
    found = _listed(tmp_path, kinds, [("", "", -1, -1, 0), ("p1", "left", 61, 1, 0)])
    assert found.findings == ("AMD", "糖网 DR")
    rows = {one.row["key"]: one.row for one in (found.look(index, DATA) for index in range(2))}
    known = {"key": "k1", "split": "test", "label": "a", "caption": "caption 1", "patient": "p1"}
    facts = dict.fromkeys(FACTS) | {"eye": "left", "age": "61"}
    assert rows["k1"] == known | facts | {"finding:AMD": 0, "finding:糖网 DR": 1}
    assert (rows["k0"]["label"], rows["k0"]["patient"], rows["k0"]["eye"]) == (None, None, None)
    assert (rows["k0"]["finding:AMD"], rows["k0"]["finding:糖网 DR"]) == (0, None)


def test_a_record_whose_picture_is_damaged_has_its_key_and_a_reason(tmp_path, monkeypatch):
    found = _listed(tmp_path, {}, [()])
    monkeypatch.setattr(inputs, "judged_record", _damaged)
    seen = found.look(0, DATA)
    assert (seen.row["key"], seen.error, seen.square) == ("k0", "cannot decode it", None)


def _damaged(record, *_, key):
    raise inputs.ImageError(f"{key}: cannot decode it")


# --- Keys of files.


def test_the_key_of_a_file_is_its_path_in_the_folder(folder):
    assert keys(inputs.of_files([str(folder)])) == ["a.png", "c.jpg", "sub/b.png"]
    (folder / "list.csv").write_text("image\nsub/b.png\na.png\n")
    assert keys(inputs.of_files([str(folder / "list.csv")])) == ["sub/b.png", "a.png"]
    assert keys(inputs.of_files([str(folder / "sub/b.png")])) == ["b.png"]
    both = inputs.of_files([str(folder / "sub"), str(folder / "a.png")])
    assert keys(both) == ["sub/b.png", "a.png"]


def test_a_photograph_that_is_named_again_has_one_row_and_is_counted(folder, monkeypatch):
    monkeypatch.chdir(folder)
    found = inputs.of_files(["a.png", "sub/../a.png", "sub", "-"], ["a.png\n"])
    assert keys(found) == ["a.png", "sub/b.png"]
    assert found.notes == ("2 photographs are named again: each has one row",)


names = st.text(st.characters(exclude_characters="/\0", exclude_categories=("Cs",)), min_size=1)
inner = st.lists(names.filter(lambda name: name not in (".", "..")), min_size=1, max_size=4)


@given(st.lists(inner, max_size=8), inner)
def test_keys_are_unique_relative_and_the_same_wherever_the_folder_is(paths, elsewhere):
    here, there = Path("/here"), Path("/", *elsewhere)
    found = inputs.keyed([here.joinpath(*path) for path in paths], str(here))
    moved = inputs.keyed([there.joinpath(*path) for path in paths], str(there))
    assert list(found) == list(moved) == list(dict.fromkeys("/".join(path) for path in paths))
    for key, path in found.items():
        assert not key.startswith("/")
        assert ".." not in key.split("/")
        assert here / key == path


@given(st.lists(inner, min_size=1, max_size=8))
def test_the_root_of_several_inputs_holds_all_and_no_deeper_folder_does(paths):
    files = [Path("/root").joinpath(*path) for path in paths]
    root = Path(inputs.root_of(["several", "inputs"], files))
    assert all(file.is_relative_to(root) for file in files)
    below = {file.relative_to(root).parts[0] for file in files if len(file.parts) > 1}
    assert len(below) > 1 or any(file.parent == root for file in files)


def test_names_that_are_not_utf_8_are_escaped(folder):
    raw = os.fsdecode(b"\xff.png")
    (folder / "a.png").rename(folder / raw)
    assert keys(inputs.of_files([str(folder)])) == ["c.jpg", "sub/b.png", "\\udcff.png"]
    (folder / "\\udcff.png").write_bytes(b"")
    with pytest.raises(ValueError, match="two files have the name"):
        inputs.of_files([str(folder)])


# --- What a file looks like, and what identifies it.


def test_a_file_is_read_judged_and_its_bytes_are_summed(folder):
    found = inputs.of_files([str(folder)])
    a, c, b = (found.look(index, DATA) for index in range(3))
    assert a.picture == hashlib.sha256((folder / "a.png").read_bytes()).hexdigest()
    np.testing.assert_array_equal(a.square, np.full((32, 32, 3), (90, 45, 20), np.uint8))
    assert (a.error, bool(a.gate)) == ("", True)
    assert c.error.startswith("cannot read the image")
    assert str(folder) not in c.error
    assert b.square is not None


def test_a_file_that_is_not_there_has_a_reason(folder):
    (folder / "list.csv").write_text("image\nnowhere.png\n")
    seen = inputs.of_files([str(folder / "list.csv")]).look(0, DATA)
    assert (seen.picture, seen.square) == ("", None)
    assert seen.error == "cannot read the file: No such file or directory"


def test_the_digest_changes_with_names_content_and_splits_and_with_nothing_else(
    folder, data_dir, tmp_path
):
    def digest() -> str:
        return inputs.of_files([str(folder)]).digest

    first = digest()
    assert digest() == first
    folder.rename(tmp_path / "moved")
    assert inputs.of_files([str(tmp_path / "moved")]).digest == first
    (tmp_path / "moved").rename(folder)
    os.utime(folder / "a.png", ns=(1, 1))
    touched = digest()
    (folder / "a.png").rename(folder / "d.png")
    renamed = digest()
    (folder / "c.jpg").write_bytes(b"more bytes than before")
    of = [inputs.find(["idrid"], str(data_dir), split).digest for split in (None, "test", "train")]
    assert len({first, touched, renamed, digest(), *of}) == 7
    assert inputs.find(["idrid"], str(data_dir), "test").digest == of[1]
