"""A photograph that takes its decoder along is a reject; the others are stored as ever."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from vclip_jax.data.images import guarded
from vclip_jax.data.images.guarded import Limits
from vclip_jax.datasets import DatasetError
from vclip_jax.datasets.ingest import build, shards
from vclip_jax.datasets.listing import Blob, Item, Listing

CRASHING = """
import os
from vclip_jax.datasets.ingest import shards

def read_and_store(blobs, storage):
    for blob in blobs:
        with open(blob.path, "rb") as file:
            if b"SIGNAL" in (data := file.read()):
                os.kill(os.getpid(), int(data[-2:]))
    return shards.read_and_store(blobs, storage)
"""


def png(width: int = 40, height: int = 40) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (width, height), (90, 30, 10)).save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


def listing(folder, contents: dict[str, bytes]) -> Listing:
    items = []
    for name, content in contents.items():
        (folder / name).write_bytes(content)
        items.append(Item(name, "train", Blob(str(folder / name)), "眼底", 0))
    return Listing("d", ("a",), items)


def rejects(folder) -> dict[str, dict]:
    lines = (folder / "rejects.jsonl").read_text("utf-8").splitlines()
    return {reject["key"]: reject for reject in map(json.loads, lines)}


@pytest.fixture
def crashing(tmp_path, monkeypatch):
    (tmp_path / "crashing_store.py").write_text(CRASHING)
    monkeypatch.syspath_prepend(tmp_path)
    guarded.end_idle()
    import crashing_store

    monkeypatch.setattr(shards, "read_and_store", crashing_store.read_and_store)
    yield
    guarded.end_idle()


def test_a_photograph_that_crashes_the_decoder_is_a_reject_with_its_name(tmp_path, crashing):
    contents = {f"{i:02}.png": png(40 + i) for i in range(20)}
    contents["05.png"] = png() + b"SIGNAL 11"
    contents["17.png"] = png() + b"SIGNAL 06"
    source = tmp_path / "source"
    source.mkdir()
    folder = build.build(listing(source, contents), tmp_path / "out", workers=1)
    found = rejects(folder)
    assert sorted(found) == ["05.png", "17.png"]
    assert found["05.png"]["reason"] == "crashes the decoder"
    assert found["05.png"]["detail"].endswith("05.png: the decoder crashes at it (SIGSEGV)")
    kept = (folder / "keys-train.txt").read_text().split()
    assert sorted(kept) == [name for name in contents if name not in found]


def test_processes_that_are_killed_from_outside_end_the_build_without_a_reject(tmp_path, crashing):
    contents = {"0.png": png(), "1.png": png() + b"SIGNAL 09"}
    with pytest.raises(DatasetError, match="a worker process was killed"):
        build.build(listing(tmp_path, contents), tmp_path / "out", workers=1)


@pytest.mark.parametrize(
    ("limits", "reason"),
    [(Limits(cpu_seconds=0.1), "too much time"), (Limits(memory=30 << 20), "too much memory")],
)
def test_a_photograph_that_takes_too_much_is_a_reject(tmp_path, monkeypatch, limits, reason):
    monkeypatch.setattr(guarded, "LIMITS", limits)
    contents = {"0.png": png(), "1.png": png(4000, 4000), "2.png": png()}
    folder = build.build(listing(tmp_path, contents), tmp_path / "out", workers=1)
    assert {key: one["reason"] for key, one in rejects(folder).items()} == {"1.png": reason}


def test_a_shard_is_the_same_whoever_decodes_and_however_many(tmp_path):
    rng = np.random.default_rng(0)
    contents = {}
    for index in range(70):
        buffer = io.BytesIO()
        noise = rng.integers(0, 256, (40, 40 + index, 3), np.uint8)
        Image.fromarray(noise).save(buffer, "JPEG")
        contents[f"{index:02}.jpg"] = buffer.getvalue()
    made = listing(tmp_path, contents)
    folders = [build.build(made, tmp_path / str(n), workers=n) for n in (1, 3)]
    for path in folders[0].iterdir():
        assert path.read_bytes() == (folders[1] / path.name).read_bytes(), path.name
