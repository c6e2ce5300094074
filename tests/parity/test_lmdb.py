"""Chinese-CLIP's own script makes databases of exported files, and they are read again."""

import base64
import subprocess
import sys
from collections import Counter

import pytest

from vclip_jax.datasets.fixtures import generic as fixture
from vclip_jax.datasets.formats import blobs, chinese_clip
from vclip_jax.datasets.own import generic

pytest.importorskip("lmdb", reason="needs the [parity] extra: lmdb, of cn-clip")
pytest.importorskip("cn_clip.preprocess", reason="needs the [parity] extra: cn-clip")

pytestmark = pytest.mark.parity


def test_databases_of_the_own_script_hold_the_exported_pairs(tmp_path):
    records = fixture.records()
    written = chinese_clip.write(records, tmp_path, "train")
    chinese_clip.write(records[:3], tmp_path, "valid")
    script = [sys.executable, "-m", "cn_clip.preprocess.build_lmdb_dataset"]
    options = ["--data_dir", str(tmp_path), "--splits", "train,valid"]
    ran = subprocess.run([*script, *options], capture_output=True, text=True, check=True)
    assert f"serializing {written.pairs} train split pairs" in ran.stdout
    assert f"serializing {written.images} train split images" in ran.stdout
    listing = generic.scan(tmp_path / "lmdb")
    assert not listing.rejects
    for split, given in (("train", records), ("validation", records[:3])):
        found = [item for item in listing.items if item.split == split]
        pairs = Counter((item.caption, blobs.read(item.image)) for item in found)
        assert pairs == Counter((one["caption"], one["image"]) for one in given)
    assert {item.key for item in listing.items} == {
        item.key for item in generic.scan(tmp_path).items
    }


def test_its_way_of_decoding_gives_the_exported_images(tmp_path):
    # Its loader decodes the alphabet of addresses; its examples are written in the usual one.
    images = [{"key": str(n), "image": bytes([n]) * n, "caption": "a"} for n in range(1, 256)]
    chinese_clip.write(images, tmp_path)
    lines = (tmp_path / "train_imgs.tsv").read_text().splitlines()
    values = [line.split("\t")[1] for line in lines]
    assert any("+" in value or "/" in value for value in values)
    assert [base64.urlsafe_b64decode(value) for value in values] == [one["image"] for one in images]
