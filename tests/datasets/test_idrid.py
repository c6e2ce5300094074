"""IDRiD from a miniature of its folder, and from the real one where that is at hand."""

from pathlib import Path

import numpy as np
import pytest

from vclip_jax.data.decode import read_rgb
from vclip_jax.data.tokenizer import Tokenizer
from vclip_jax.datasets import DatasetError, open_source
from vclip_jax.datasets.idrid.builder import (
    CLASSES,
    Rejects,
    build,
    caption,
    idrid_config,
    read_layout,
    split_of,
)

REAL = Path(__file__).parents[3] / "shared/data/idrid"
IMAGES = "B. Disease Grading/1. Original Images/a. Training Set"
LABELS = "B. Disease Grading/2. Groundtruths/a. IDRiD_Disease Grading_Training Labels.csv"


@pytest.fixture(scope="module")
def built(tmp_path_factory, write_idrid):
    source = write_idrid(tmp_path_factory.mktemp("idrid"), train=30, test=4)
    data_dir = tmp_path_factory.mktemp("data")
    builder, rejects = build(source, data_dir)
    assert rejects == {}
    return source, data_dir, builder


def test_a_round_trip_keeps_grades_and_pixels_and_drops_metadata(built):
    source, data_dir, _ = built
    records = {r["key"]: r for r in open_source("idrid", data_dir, "train+holdout")}
    assert set(records) == {f"train/IDRiD_{index:03}" for index in range(1, 31)}
    for index in range(30):
        record = records[f"train/IDRiD_{index + 1:03}"]
        assert record["label"] == index % 5
        assert record["caption"] == caption(record["key"], index % 5, index % 3)
        original = (source / IMAGES / f"IDRiD_{index + 1:03}.jpg").read_bytes()
        assert b"patient" in original
        assert b"patient" not in record["image"]
        np.testing.assert_array_equal(read_rgb(record["image"]), read_rgb(original))


def test_the_testing_set_is_a_split_of_its_own_with_its_own_keys(built):
    _, data_dir, builder = built
    assert set(builder.info.splits) == {"train", "holdout", "test"}
    keys = {record["key"] for record in open_source("idrid", data_dir, "test")}
    assert keys == {f"test/IDRiD_{index:03}" for index in range(1, 5)}


def test_classes_are_the_grades(built):
    assert built[2].info.features["label"].names == list(CLASSES)


def test_without_the_testing_set_there_is_a_holdout(tmp_path, write_idrid):
    source = write_idrid(tmp_path / "source")
    builder, _ = build(source / "B. Disease Grading", tmp_path / "data")
    assert set(builder.info.splits) == {"train", "holdout"}


def test_the_holdout_is_a_fifth_and_depends_on_the_key_alone():
    splits = [split_of(f"train/IDRiD_{index:03}") for index in range(1, 414)]
    assert 0.15 < splits.count("holdout") / 413 < 0.25
    assert set(splits) == {"train", "holdout"}
    assert split_of("test/IDRiD_001") == "test"


def test_large_images_are_scaled_down(tmp_path, write_idrid):
    source = write_idrid(tmp_path / "source", train=6)
    build(source, tmp_path / "data", max_side=36)
    name = f"idrid/{idrid_config(36).name}"
    for record in open_source(name, tmp_path / "data", "train"):
        assert read_rgb(record["image"]).shape == (24, 36, 3)


def test_captions_are_deterministic_varied_and_fit_the_context():
    keys = [f"train/IDRiD_{index:03}" for index in range(100)]
    captions = {
        (dr, dme): [caption(key, dr, dme) for key in keys] for dr in range(5) for dme in range(3)
    }
    assert caption(keys[0], 2, 1) == captions[2, 1][0]
    assert all(len(set(variants)) >= 6 for variants in captions.values())
    by_grade = [{c for dme in range(3) for c in captions[dr, dme]} for dr in range(5)]
    assert sum(map(len, by_grade)) == len(set().union(*by_grade)), "grades share no caption"
    every = sorted(set().union(*by_grade))
    tokens = Tokenizer.from_captions(every).encode(every, 80)
    assert (tokens > 0).sum(axis=1).max() <= 52


def damage(source: Path) -> None:
    folder, table = source / IMAGES, source / LABELS
    (folder / "IDRiD_002.jpg").write_bytes(b"\xff\xd8\xff\xe0 not a photograph")
    (folder / "IDRiD_003.jpg").unlink()
    rows = table.read_text().replace("IDRiD_004,3,0", "IDRiD_004,,0").splitlines()
    rows = [row for row in rows if not row.startswith("IDRiD_005")]
    table.write_text("\n".join(rows))


def test_bad_images_are_left_out_and_named_when_asked(tmp_path, write_idrid):
    source = write_idrid(tmp_path / "source")
    damage(source)
    _, rejects = build(source, tmp_path / "data", skip_bad=True)
    assert rejects == {
        "unreadable image": ["train/IDRiD_002"],
        "missing image": ["train/IDRiD_003"],
        "missing label": ["train/IDRiD_004", "train/IDRiD_005"],
    }
    assert len(open_source("idrid", tmp_path / "data", "train+holdout")) == 16


def test_bad_images_stop_the_build_otherwise_and_leave_nothing(tmp_path, write_idrid):
    source = write_idrid(tmp_path / "source", train=4)
    (source / IMAGES / "IDRiD_002.jpg").write_bytes(b"junk")
    with pytest.raises(DatasetError, match="train/IDRiD_002: cannot read") as caught:
        build(source, tmp_path / "data")
    assert "\n" not in str(caught.value)
    with pytest.raises(DatasetError, match="is not in"):
        open_source("idrid", tmp_path / "data", "train")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda root: (root / IMAGES / "IDRiD_001.jpg").unlink(), "lists IDRiD_001: not in"),
        (lambda root: (root / IMAGES / "IDRiD_009.jpg").touch(), "IDRiD_009.jpg: not in a. IDRiD"),
        (lambda root: edit(root, "IDRiD_001,0,0", "IDRiD_001,7,0"), "IDRiD_001 has no valid"),
        (lambda root: edit(root, "IDRiD_002", "IDRiD_001"), "'IDRiD_001' is listed more than once"),
        (lambda root: edit(root, "Retinopathy grade", "Grade"), "expected the columns"),
        (lambda root: (root / LABELS).unlink(), "lacks 2. Groundtruths"),
    ],
)
def test_a_wrong_layout_is_named(tmp_path, write_idrid, change, message):
    source = write_idrid(tmp_path, train=4)
    change(source)
    with pytest.raises(DatasetError, match=message):
        read_layout(source, Rejects())


def edit(root: Path, old: str, new: str) -> None:
    (root / LABELS).write_text((root / LABELS).read_text().replace(old, new))


def test_another_folder_is_refused(tmp_path):
    with pytest.raises(DatasetError, match="not IDRiD's disease-grading folder"):
        read_layout(tmp_path, Rejects())


@pytest.mark.skipif(not REAL.exists(), reason=f"the photographs {REAL} are not there")
def test_the_real_training_set_has_the_published_counts():
    photographs = read_layout(REAL, Rejects())
    grades = np.bincount([photograph.retinopathy for photograph in photographs])
    risks = np.bincount([photograph.dme for photograph in photographs])
    assert grades.tolist() == [134, 20, 136, 74, 49]
    assert risks.tolist() == [177, 41, 195]
