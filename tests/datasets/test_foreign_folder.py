"""A built dataset's folder from a stranger: what it names is not imported, what it claims is held
against limits."""

import json
import os
import shutil
import sys

import numpy as np
import pytest
from PIL import Image

from vclip_jax.datasets import DatasetError, open_source
from vclip_jax.datasets.ingest import build
from vclip_jax.datasets.listing import Blob, Item, Listing

TFDS = "tensorflow_datasets.core.features."


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    folder = tmp_path_factory.mktemp("built")
    pixels = np.random.default_rng(0).integers(0, 256, (40, 40, 3)).astype(np.uint8)
    Image.fromarray(pixels).save(folder / "a.png")
    item = Item("a", "train", Blob(str(folder / "a.png")), "眼底", 0)
    build.build(Listing("toy", ("x", "y"), [item]), folder / "data", workers=1)
    return folder / "data"


@pytest.fixture
def data_dir(built, tmp_path):
    return shutil.copytree(built, tmp_path / "data")


@pytest.fixture
def trap(tmp_path, monkeypatch):
    """A module that can be imported, and notes it; returns the note's path."""
    note = tmp_path / "was run"
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "vclip_trap.py").write_text(f"open({str(note)!r}, 'w').close()\nF = 1\n")
    monkeypatch.syspath_prepend(folder)
    yield note
    sys.modules.pop("vclip_trap", None)


def change(data_dir, name, edit):
    path = next(data_dir.glob(f"toy/*/*/{name}"))
    content = json.loads(path.read_text())
    content = edit(content) or content
    path.write_text(json.dumps(content))


def refused(data_dir):
    with pytest.raises(DatasetError) as caught:
        open_source("toy", data_dir, "train")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def _nested(content):
    inner = dict(content["featuresDict"]["features"]["key"], pythonClassName="vclip_trap.F")
    content["featuresDict"]["features"]["key"] = {
        "pythonClassName": f"{TFDS}sequence_feature.Sequence",
        "sequence": {"feature": inner, "length": "-1"},
    }


def _within(**content):
    return {"pythonClassName": f"{TFDS}features_dict.FeaturesDict", **content}


ATTACKS = {
    "at the top": lambda c: c | {"pythonClassName": "vclip_trap.F"},
    "of a feature": lambda c: c["featuresDict"]["features"]["key"].update(
        pythonClassName="vclip_trap.F"
    ),
    "of a feature within a feature": _nested,
    "under the key's other spelling": lambda c: (
        c["featuresDict"]["features"]["key"].pop("pythonClassName"),
        c["featuresDict"]["features"]["key"].update(python_class_name="vclip_trap.F"),
    )[2:],
    "in the old form": lambda c: {"type": "vclip_trap.F", "content": {}},
    "in the old form, within": lambda c: {
        "type": f"{TFDS}features_dict.FeaturesDict",
        "content": {"key": {"type": "vclip_trap.F", "content": {}}},
    },
    "as JSON within JSON": lambda c: _within(
        jsonFeature={"json": json.dumps({"key": {"type": "vclip_trap.F", "content": {}}})}
    ),
    "of this package": lambda c: c | {"pythonClassName": "vclip_jax.drills.corrupt.X"},
}


@pytest.mark.parametrize("place", ATTACKS)
def test_a_class_that_a_folder_names_is_not_imported(data_dir, trap, place):
    change(data_dir, "features.json", ATTACKS[place])
    assert "nothing" in refused(data_dir)
    assert not trap.exists()
    assert "vclip_trap" not in sys.modules


def test_a_folder_that_names_a_module_is_read_without_it(data_dir, trap):
    change(data_dir, "dataset_info.json", lambda c: c | {"moduleName": "vclip_trap"})
    assert len(open_source("toy", data_dir, "train")) == 1
    assert not trap.exists()


@pytest.mark.parametrize(
    ("name", "edit"),
    [
        (
            "features.json",
            lambda c: c["featuresDict"]["features"]["label"]["classLabel"].update(
                numClasses="1000000000000"
            ),
        ),
        ("features.json", lambda c: [c]),
        ("features.json", lambda c: {"featuresDict": {}}),
        ("features.json", lambda c: {"featuresDict": "x"}),
        ("dataset_info.json", lambda c: c["splits"][0].update(filepathTemplate="../{SPLIT}")),
        ("dataset_info.json", lambda c: c.update(name="../../etc/toy")),
        ("dataset_info.json", lambda c: c["splits"][0].update(shardLengths=["x"])),
        ("dataset_info.json", lambda c: c.update(fileFormat="vclip_trap")),
        ("dataset_info.json", lambda c: c.update(version="one")),
    ],
)
def test_what_a_folder_claims_is_refused_in_one_line(data_dir, trap, name, edit):
    change(data_dir, name, edit)
    refused(data_dir)
    assert not trap.exists()


@pytest.mark.parametrize("name", ["features.json", "dataset_info.json"])
def test_deep_json_is_refused(data_dir, name):
    next(data_dir.glob(f"toy/*/*/{name}")).write_text('{"a": ' + "[" * 100_000)
    assert "levels deep" in refused(data_dir)


@pytest.mark.parametrize("name", ["features.json", "label.labels.txt", "more"])
def test_a_pipe_in_a_folder_is_not_waited_for(data_dir, name):
    folder = next(data_dir.glob("toy/*/*"))
    (folder / name).unlink(missing_ok=True)
    os.mkfifo(folder / name)
    assert name in refused(data_dir)


@pytest.mark.parametrize(
    "template",
    [
        "{DATASET}-{SPLIT:>20000000}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        "{DATASET.__class__}-{SPLIT}.{FILEFORMAT}-{SHARD_X_OF_Y}",
        "x" * 300,
    ],
)
def test_a_template_that_asks_for_more_than_names_is_refused(data_dir, template):
    def edit(content):
        content["splits"][0]["filepathTemplate"] = template

    change(data_dir, "dataset_info.json", edit)
    assert "is not a file's name" in refused(data_dir)


def test_another_number_of_names_than_of_classes_is_refused(data_dir):
    next(data_dir.glob("toy/*/*/label.labels.txt")).write_text("x\n")
    assert "names 1 classes, and features.json has 2" in refused(data_dir)
