"""Opening built datasets: records, splits, pickling and clear refusals."""

import json
import pickle
import shutil

import numpy as np
import pytest
import tensorflow_datasets as tfds
from PIL import Image

from vclip_jax.datasets import DatasetError, open_source
from vclip_jax.datasets.built import built_datasets, open_builder
from vclip_jax.datasets.catalog import DATASETS
from vclip_jax.datasets.ingest import build
from vclip_jax.datasets.listing import Blob, Item, Listing

JPEG = bytes.fromhex("ffd8ffd9")


class Small(tfds.core.GeneratorBasedBuilder):
    """Two splits of a few records, with a column that sources leave out."""

    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = (
        tfds.core.BuilderConfig(name="one"),
        tfds.core.BuilderConfig(name="two"),
    )
    MODULE_PATH = __file__

    def _info(self):
        features = {
            "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
            "caption": tfds.features.Text(),
            "key": tfds.features.Text(),
            "label": tfds.features.Scalar(dtype=np.int64),
            "extra": tfds.features.Scalar(dtype=np.int64),
        }
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features))

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples(5, "t"), "test": self._generate_examples(2, "e")}

    def _generate_examples(self, count, prefix):
        for index in range(count):
            key = f"{prefix}{index}"
            caption = f"眼底{index}"
            yield (
                key,
                {"image": JPEG, "caption": caption, "key": key, "label": index - 1, "extra": 9},
            )


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    Small(config="one", data_dir=folder, file_format="array_record").download_and_prepare()
    return folder


def test_records_have_the_four_features(data_dir):
    source = open_source("small", data_dir, "train")
    assert len(source) == 5
    by_key = {record["key"]: record for record in source}
    assert by_key["t0"] == {"image": JPEG, "caption": "眼底0", "key": "t0", "label": -1}
    assert set(by_key) == {f"t{index}" for index in range(5)}
    assert source[-1] == source[4]
    assert source[np.int64(2)] == source[2]
    with pytest.raises(IndexError, match="small:train"):
        source[5]


def test_sums_and_slices_of_splits_are_read(data_dir):
    assert len(open_source("small/one", data_dir, "train+test")) == 7
    assert len(open_source("small", data_dir, "train[:2]+test[50%:]")) == 3


def test_sources_are_pickled_for_workers(data_dir):
    source = open_source("small", data_dir, "test")
    copy = pickle.loads(pickle.dumps(source))
    assert list(copy) == list(source)
    assert len(pickle.dumps(source)) < 20_000


def test_an_unknown_split_names_the_known_ones(data_dir):
    with pytest.raises(DatasetError, match="no split 'holdout': it has test, train"):
        open_source("small", data_dir, "train+holdout")
    with pytest.raises(DatasetError):
        open_source("small", data_dir, "train[:x]")


def test_several_configs_must_be_named(tmp_path):
    for config in ("one", "two"):
        Small(config=config, data_dir=tmp_path, file_format="array_record").download_and_prepare()
    with pytest.raises(DatasetError, match="name one: small/one, small/two"):
        open_source("small", tmp_path, "train")
    assert len(open_source("small/two", tmp_path, "train")) == 5
    assert [name for name, _ in built_datasets(tmp_path)] == ["small/one", "small/two"]


def test_the_newest_version_is_opened(tmp_path):
    Small(config="one", data_dir=tmp_path, file_format="array_record").download_and_prepare()
    for version in ("0.9.0", "0.10.0"):
        stale = tmp_path / "small" / "one" / version
        stale.mkdir()
        (stale / "dataset_info.json").write_text("{}")
    assert len(open_source("small", tmp_path, "train")) == 5


def built(folder, columns, values, name="generic"):
    """Build a dataset of two photographs with further columns, and open it."""
    image = folder / "one.png"
    Image.new("RGB", (64, 64), (180, 90, 40)).save(image)
    items = [
        Item(f"k{row}", "test", Blob(str(image)), f"caption {row}", -1, cells)
        for row, cells in enumerate(values)
    ]
    listing = Listing(name=name, classes=("a", "b"), items=items, columns=columns)
    build.build(listing, folder / "data", workers=1)
    source = open_source(name, folder / "data", "test")
    return source, {record["key"]: record for record in source}


def test_findings_and_facts_of_a_listing_reach_the_records(tmp_path):
    columns = {"patient": str, "eye": str, "age": int, "findings/糖网 DR": int, "findings/AMD": int}
    values = [("p1", "left", 61, 1, 0), ("", "", -1, -1, 1)]
    source, records = built(tmp_path, columns, values)
    assert source.finding_names == ("AMD", "糖网 DR")
    assert records["k0"]["findings"] == {"AMD": 0, "糖网 DR": 1}
    assert records["k1"]["findings"] == {"AMD": 1, "糖网 DR": -1}
    assert records["k0"]["facts"] == {"eye": "left", "age": "61"}
    assert "facts" not in records["k1"]
    again = pickle.loads(pickle.dumps(source))
    assert again[0] == source[0]
    # TFDS itself reads findings as a dict.
    rows = open_builder("generic", tmp_path / "data").as_data_source("test")
    plain = {row["key"].decode(): dict(row["findings"]) for row in rows}
    assert plain == {key: record["findings"] for key, record in records.items()}


def test_columns_of_a_known_dataset_are_its_findings_and_facts(tmp_path):
    columns = {"dr_grade": int, "is_gc": int, "eyes_side": str}
    source, records = built(tmp_path, columns, [(3, 0, "right"), (-1, 1, "")], "synfundus")
    assert source.finding_names == ("diabetic retinopathy", "glaucoma")
    assert records["k0"]["findings"] == {"diabetic retinopathy": 1, "glaucoma": 0}
    assert records["k1"]["findings"] == {"diabetic retinopathy": -1, "glaucoma": 1}
    assert records["k0"]["facts"] == {"eye": "right"}


def test_every_column_of_a_known_dataset_exists_in_its_fixture(tmp_path):
    for name, dataset in DATASETS.items():
        if wanted := {*dataset.findings.values(), *dataset.facts.values()}:
            dataset.fixture(tmp_path / name)
            assert wanted <= set(dataset.scan(tmp_path / name).columns), name


def test_more_records_than_a_file_has_bytes_are_refused_when_it_is_opened(data_dir, tmp_path):
    shutil.copytree(data_dir / "small", tmp_path / "small")
    (info,) = tmp_path.rglob("dataset_info.json")
    content = json.loads(info.read_text())
    content["splits"][0]["shardLengths"] = [str(2**32 - 1)]
    info.write_text(json.dumps(content))
    split = content["splits"][0]["name"]
    with pytest.raises(DatasetError, match="too few for 4,294,967,295 records: copy it again"):
        open_source("small", tmp_path, split)


def test_files_and_class_names_that_were_changed_after_the_build_are_noticed(tmp_path):
    source, _ = built(tmp_path, {}, [(), ()])
    before = source.digest()
    (path,) = (tmp_path / "data").rglob("*.array_record-*")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    assert open_source("generic", tmp_path / "data", "test").digest() != before
    (names,) = (tmp_path / "data").rglob("label.labels.txt")
    names.write_text("b\na\n")
    with pytest.raises(DatasetError, match=r"names the classes b, a, and card.json a, b"):
        open_source("generic", tmp_path / "data", "test")
