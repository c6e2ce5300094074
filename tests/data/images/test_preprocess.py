"""Squares that were stored ready: the photograph's picture at less cost, or a refusal."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from vclip_jax.config import default
from vclip_jax.data.choices import MODES
from vclip_jax.data.images.augment import AUGMENTATIONS
from vclip_jax.data.images.fit import FITS
from vclip_jax.data.images.preprocess import preprocess_record
from vclip_jax.data.pipeline import eval_batches, train_batches
from vclip_jax.data.text.wordpiece import WordPiece
from vclip_jax.datasets import open_source
from vclip_jax.datasets.__main__ import main
from vclip_jax.datasets.ingest import build as ingest
from vclip_jax.datasets.ingest.store import Storage
from vclip_jax.datasets.listing import Blob, Item, Listing
from vclip_jax.train.inputs import open_training_data

CAPTIONS = ["未见异常。", "疑似青光眼。"]


def eye(index: int) -> Image.Image:
    """A bright disc with vessels on black, wider than high."""
    pixels = np.zeros((300, 400, 3), np.uint8)
    cv2.circle(pixels, (200, 150), 130, (180, 90, 40), -1)
    rng = np.random.default_rng(index)
    for x, y in rng.integers(60, 240, (12, 2)):
        cv2.line(pixels, (200, 150), (int(x) + 50, int(y)), (110, 30, 20), 4)
    return Image.fromarray(cv2.GaussianBlur(pixels, (0, 0), 1.5))


@pytest.fixture(scope="module")
def build(tmp_path_factory):
    """Six eyes built with a `Storage`, as a function; each is built once."""
    folder = tmp_path_factory.mktemp("eyes")
    for index in range(6):
        eye(index).save(folder / f"{index}.png")
    items = [
        Item(f"k{i}", "train", Blob(str(folder / f"{i}.png")), CAPTIONS[i % 2], i % 2)
        for i in range(6)
    ]

    def opened(**storage):
        built = ingest.build(Listing("eyes", ("a", "b"), items), folder, Storage(**storage))
        return open_source(f"eyes/{built.parent.name}", folder, "train")

    opened.folder = folder
    return opened


def settings(fit: str, mode: str = "exact", **changes):
    data = default().data
    data.update({"image_size": 56, "fit": fit, "decode": mode, **changes})
    return data


@pytest.mark.parametrize("raw", [False, True])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fit", FITS)
def test_a_ready_square_shows_what_the_photograph_shows(build, fit, mode, raw):
    photographs, squares = build(max_side=0), build(ready=64, fit=fit, raw=raw, quality=95)
    for photograph, square in zip(photographs, squares, strict=True):
        assert (photograph["key"], square["fitted"]) == (square["key"], fit)
        want, got = (
            preprocess_record(r, settings(fit, mode)).astype(int) for r in (photograph, square)
        )
        assert np.abs(want - got).mean() < 4  # of 255; another fit is 15 and more away


def test_raw_squares_are_the_fitted_pixels_themselves(build):
    photographs, squares = build(max_side=0), build(ready=56, fit="pad", raw=True)
    for photograph, square in zip(photographs, squares, strict=True):
        want, got = (preprocess_record(record, settings("pad")) for record in (photograph, square))
        np.testing.assert_array_equal(want, got)
        with Image.open(io.BytesIO(square["image"])) as opened:
            assert (opened.format, opened.size) == ("PPM", (56, 56))


def pipelines(source, fit: str, size: int = 56, augment="fundus"):
    policy = AUGMENTATIONS.get(augment, augment)
    tokenizer = WordPiece.from_captions(CAPTIONS)
    options = {"global_batch_size": 2, "size": size, "fit": fit}
    yield train_batches(source, tokenizer, seed=0, augment=policy, num_threads=1, **options)
    yield eval_batches(source, num_threads=1, **options)


def test_training_and_evaluation_take_squares_that_were_fitted_alike(build):
    for batches in pipelines(build(ready=64, fit="fundus"), "fundus"):
        assert next(batches)["image"].shape == (2, 56, 56, 3)
        batches.close()


@pytest.mark.parametrize(
    ("asked", "message"),
    [
        ({"fit": "squash"}, "fit='fundus' when it was stored, which config.data.fit='squash'"),
        ({"fit": "fundus", "size": 96}, "squares of 64 px, and config.data.image_size=96"),
        ({"fit": "fundus", "augment": "chinese_clip"}, "augment='chinese_clip' crops photographs"),
    ],
)
def test_squares_for_another_purpose_are_refused_before_any_batch(build, asked, message):
    with pytest.raises(ValueError, match=message):
        next(pipelines(build(ready=64, fit="fundus"), **asked))


def test_a_run_with_another_fit_is_refused_when_its_data_is_opened(build):
    build(ready=64, fit="fundus")
    config = default()
    config.global_batch_size = 2
    config.data.update(
        {
            "dataset": "eyes/ready64px-fundus-q92",
            "data_dir": str(build.folder),
            "image_size": 56,
            "validation_split": "",
        }
    )
    with pytest.raises(ValueError, match=r"config\.data\.fit='squash' contradicts: set that to"):
        open_training_data(config)
    config.data.fit = "fundus"
    assert len(open_training_data(config)[0]) == 6


def test_a_record_alone_refuses_another_fit(build):
    record = build(ready=64, fit="fundus")[0]
    with pytest.raises(ValueError, match="contradicts"):
        preprocess_record(record, settings("pad"))


def test_squares_are_not_exported_or_audited_as_photographs(build, tmp_path, capsys):
    name = "eyes/ready64px-fundus-q92"
    build(ready=64, fit="fundus")
    data_dir = ["--data-dir", str(build.folder)]
    assert main(["export", name, *data_dir, "--out", str(tmp_path / "shards")]) == 1
    assert "built with --ready" in capsys.readouterr().err
    assert main(["audit", name, name, *data_dir, "--split-b", "train"]) == 1
    assert "built with --ready" in capsys.readouterr().err


@pytest.mark.parametrize(
    "wrong",
    [
        {"ready": 64},
        {"fit": "pad"},
        {"raw": True},
        {"ready": 8, "fit": "pad"},
        {"ready": 64, "fit": "pad", "crop": True},
    ],
)
def test_storage_that_contradicts_itself_is_refused(wrong):
    with pytest.raises(ValueError, match="fit"):
        Storage(**wrong)
