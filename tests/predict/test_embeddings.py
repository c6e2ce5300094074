"""Embeddings of a split: what they are, and when they are computed again."""

import dataclasses
import io
import os
import shutil
import zipfile

import numpy as np
import pytest

import vclip_jax
from vclip_jax import datasets
from vclip_jax.datasets.built import DatasetError
from vclip_jax.interop import folder
from vclip_jax.interop.weights import Weights
from vclip_jax.predict import embeddings

NAME = "synthetic/messidor_like-32px-12-s1"


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory):
    path = tmp_path_factory.mktemp("data")
    datasets.prepare(NAME, "", str(path))
    return path


@pytest.fixture(scope="module")
def clip(portable_folder):
    return vclip_jax.load(portable_folder)


@pytest.fixture
def count_computations(monkeypatch):
    """A list that grows by one for every split that is embedded."""
    computed = []
    original = embeddings.compute

    def compute(*arguments):
        computed.append(arguments)
        return original(*arguments)

    monkeypatch.setattr(embeddings, "compute", compute)
    return computed


def assert_same(a, b):
    for field in dataclasses.fields(embeddings.SplitEmbeddings):
        np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name))


def test_rows_are_the_records_and_captions_occur_once(clip, data_dir, monkeypatch):
    monkeypatch.setattr(clip, "batch_size", 5)
    source = datasets.open_source(NAME, str(data_dir), "test")
    found = embeddings.compute(clip, source)
    records = list(source)
    squares = np.stack([clip.preprocess(record["image"]) for record in records])
    expected = np.concatenate([clip.embed(squares[start : start + 5]) for start in (0, 5, 10)])
    np.testing.assert_array_equal(found.images, expected)
    assert found.keys == tuple(record["key"] for record in records)
    assert found.labels.tolist() == [record["label"] for record in records]
    assert [found.captions[row] for row in found.caption_ids] == [r["caption"] for r in records]
    assert len(set(found.captions)) == len(found.captions) == len(found.texts)
    np.testing.assert_array_equal(found.texts, clip.encode_text(found.captions))
    assert found.class_names == source.class_names


def test_equal_captions_share_a_row(clip):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (3, 40, 40, 3), np.uint8)
    import cv2

    records = [
        {
            "image": cv2.imencode(".png", image)[1].tobytes(),
            "caption": caption,
            "key": str(key),
            "label": -1,
        }
        for key, (image, caption) in enumerate(zip(pixels, ["正常", "青光眼", "正常"], strict=True))
    ]
    found = embeddings.compute(clip, records)
    assert found.captions == tuple(sorted(("正常", "青光眼")))
    assert found.caption_ids[0] == found.caption_ids[2] != found.caption_ids[1]


def test_the_second_time_nothing_is_computed(clip, data_dir, tmp_path, count_computations):
    first = embeddings.embed_split(clip, NAME, data_dir, "test", tmp_path)
    second = embeddings.embed_split(clip, NAME, data_dir, "test", tmp_path)
    assert len(count_computations) == 1
    assert_same(first, second)
    (file,) = tmp_path.iterdir()
    assert file.name.startswith("synthetic-messidor_like-32px-12-s1-test-")
    with np.load(file, allow_pickle=False) as content:
        assert content["images"].dtype == np.float32


def test_a_damaged_file_is_computed_again(clip, data_dir, tmp_path, count_computations):
    first = embeddings.embed_split(clip, NAME, data_dir, "test", tmp_path)
    (file,) = tmp_path.iterdir()
    file.write_bytes(file.read_bytes()[:1000])
    assert_same(embeddings.embed_split(clip, NAME, data_dir, "test", tmp_path), first)
    assert len(count_computations) == 2
    assert list(tmp_path.iterdir()) == [file]


def test_a_write_that_fails_leaves_nothing(clip, data_dir, tmp_path, monkeypatch):
    def fail(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        embeddings.embed_split(clip, NAME, data_dir, "test", tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_key_changes_with_all_that_numbers_depend_on(
    portable_folder, tmp_path, data_dir, clip, tokenizer
):
    weights, _ = folder.load(portable_folder)
    name, array = next(item for item in weights.arrays.items() if item[0].startswith("visual"))
    trained = weights.arrays | {name: np.nextafter(array, np.float32(9))}
    preprocessed = {**weights.config, "data": {**weights.config["data"], "enhance": True}}
    words = type(tokenizer)(tokenizer.vocabulary[::1][:-2] + tokenizer.vocabulary[:-3:-1])
    clips = [
        clip,
        vclip_jax.Pretrained(Weights(weights.config, trained), tokenizer),
        vclip_jax.Pretrained(Weights(preprocessed, weights.arrays), tokenizer),
        vclip_jax.Pretrained(weights, words),
        vclip_jax.Pretrained(weights, tokenizer, dtype="bfloat16"),
    ]
    keys = [embeddings.content_key(c, NAME, data_dir, "test") for c in clips]
    assert embeddings.content_key(clip, NAME, data_dir, "test") == keys[0]
    keys.append(embeddings.content_key(clip, NAME, data_dir, "test[:50%]"))

    changed = tmp_path / "changed"
    shutil.copytree(data_dir, changed)
    assert embeddings.content_key(clip, NAME, changed, "test") == keys[0]
    record = next(changed.rglob("*.array_record*"))
    content = bytearray(record.read_bytes())
    content[len(content) // 2] ^= 1
    record.write_bytes(content)
    keys.append(embeddings.content_key(clip, NAME, changed, "test"))

    newer = tmp_path / "newer"
    shutil.copytree(data_dir, newer)
    (version,) = [info.parent for info in newer.rglob("dataset_info.json")]
    info = version / "dataset_info.json"
    info.write_text(info.read_text().replace(version.name, "9.0.0"))
    version.rename(version.parent / "9.0.0")
    keys.append(embeddings.content_key(clip, NAME, newer, "test"))
    assert len(set(keys)) == len(keys) == 8


def test_a_split_that_is_not_there_is_one_line(clip, data_dir, tmp_path):
    with pytest.raises(DatasetError, match="has no split 'validation': it has test"):
        embeddings.embed_split(clip, NAME, data_dir, "validation", tmp_path)


def test_files_of_others_take_no_more_than_their_size(tmp_path, monkeypatch):
    path = tmp_path / "a.npz"
    embeddings.save_arrays(path, {"a": np.arange(1000)})
    np.testing.assert_array_equal(embeddings.load_arrays(path)["a"], np.arange(1000))
    monkeypatch.setattr(embeddings, "MOST_BYTES", 1000)
    assert embeddings.load_arrays(path) == {}
    monkeypatch.undo()
    np.savez_compressed(path, a=np.zeros(10**6))
    assert embeddings.load_arrays(path) == {}
    header = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        header, {"descr": "<f4", "fortran_order": False, "shape": (2**45,)}
    )
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("a.npy", header.getvalue())
    assert embeddings.load_arrays(path) == {}
    path.unlink()
    os.mkfifo(path)
    assert embeddings.load_arrays(path) == {}
