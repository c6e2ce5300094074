"""Built datasets hold what the cases say, are the same every time, and survive being cut off."""

import hashlib
import io
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
import tensorflow_datasets as tfds
from PIL import Image

from vclip_jax.datasets.synthetic import builder as builder_module
from vclip_jax.datasets.synthetic.annotation import ANNOTATION_COLUMNS, annotate
from vclip_jax.datasets.synthetic.builder import Synthetic, build, synthetic_config
from vclip_jax.datasets.synthetic.domains import DOMAINS, label_of, sample_case
from vclip_jax.datasets.synthetic.record import JPEG_QUALITY, key_of, record, split_of
from vclip_jax.datasets.synthetic.render import render

SIZE, COUNT, SEED = 32, 24, 5
SKIP = {"image": tfds.decode.SkipDecoding()}


@pytest.fixture(scope="module")
def data_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("data")


@pytest.fixture(scope="module")
def trained_on(data_dir: Path) -> Synthetic:
    return build("synfundus_like", SIZE, COUNT, SEED, data_dir)


def _files(built: Synthetic) -> dict[str, str]:
    folder = Path(built.data_path)
    return {p.name: hashlib.sha256(p.read_bytes()).hexdigest() for p in folder.iterdir()}


def test_every_record_reads_back_as_its_case_says(trained_on: Synthetic) -> None:
    seen = []
    for split in trained_on.info.splits:
        for example in trained_on.as_data_source(split=split, decoders=SKIP):
            key = example["key"].decode()
            index = int(key.rsplit("-", 1)[1])
            case = sample_case("synfundus_like", SEED, index)
            image = example["image"]
            row = annotate(case, file_md5=hashlib.md5(image).hexdigest())
            read = {c: example[c] for c in ANNOTATION_COLUMNS}
            read = {c: v.decode() if isinstance(v, bytes) else int(v) for c, v in read.items()}
            assert read == row
            assert example["caption"].decode() == row["diagnosticAdvice"]
            assert int(example["label"]) == label_of("synfundus_like", case)
            assert split_of(key) == split
            assert image == record("synfundus_like", SIZE, SEED, index)["image"]
            seen.append(index)
    assert sorted(seen) == list(range(COUNT))


def test_pictures_are_stored_as_good_jpegs_without_chroma_subsampling() -> None:
    stored = record("synfundus_like", 64, 0, 1)["image"]
    height, width, _, subsampling = simplejpeg.decode_jpeg_header(stored)
    assert (height, width, subsampling) == (64, 64, "444")
    rendered = render(sample_case("synfundus_like", 0, 1), 64)
    decoded = np.asarray(Image.open(io.BytesIO(stored)))
    assert np.abs(decoded.astype(int) - rendered).mean() < 4
    reference = io.BytesIO()
    Image.fromarray(rendered).save(reference, "JPEG", quality=JPEG_QUALITY, subsampling=0)
    assert len(stored) == pytest.approx(len(reference.getvalue()), rel=0.1)


def test_two_builds_are_byte_identical_however_many_processes_render(
    trained_on: Synthetic, tmp_path: Path
) -> None:
    again = build("synfundus_like", SIZE, COUNT, SEED, tmp_path, workers=2)
    assert _files(again) == _files(trained_on)


def test_shards_keep_the_order_and_lose_nothing(
    trained_on: Synthetic, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder_module, "_RECORDS_PER_SHARD", 4)
    many = build("synfundus_like", SIZE, COUNT, SEED, tmp_path)
    assert len(list(Path(many.data_path).glob("*-train.array_record-*"))) > 1
    for split in trained_on.info.splits:
        keys = [e["key"] for e in many.as_data_source(split=split, decoders=SKIP)]
        assert keys == sorted(keys)
        assert keys == [e["key"] for e in trained_on.as_data_source(split=split, decoders=SKIP)]


def test_a_finished_build_is_reused(
    trained_on: Synthetic, data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(builder_module, "record", _must_not_render)
    again = build("synfundus_like", SIZE, COUNT, SEED, data_dir)
    assert again.info.splits["train"].num_examples == trained_on.info.splits["train"].num_examples


def _must_not_render(*_: object) -> None:
    raise AssertionError("rendered although the dataset was there")


def test_a_finished_build_needs_no_right_to_write(tmp_path: Path) -> None:
    first = build("fives_like", 32, 2, 0, tmp_path, workers=1)
    lock = Path(first.data_dir).parent / ".lock"
    lock.unlink()
    lock.mkdir()  # nobody, not even root, can open it for writing
    assert build("fives_like", 32, 2, 0, tmp_path, workers=1).data_dir == first.data_dir


def test_a_build_that_was_cut_off_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(builder_module, "record", _must_not_render)
        with pytest.raises(AssertionError, match="rendered"):
            build("refuge_like", SIZE, 3, 0, tmp_path)
    folder = tmp_path / "synthetic" / "refuge_like-32px-3-s0"
    assert not (folder / "1.0.0").exists()
    killed = folder / "incomplete.ABCDEF_1.0.0"  # what a killed TFDS leaves behind
    killed.mkdir()
    (folder / "1.0.0").mkdir()
    (folder / "1.0.0" / "synthetic-test.array_record-00000-of-00001").write_bytes(b"half")
    assert build("refuge_like", SIZE, 3, 0, tmp_path).info.splits["test"].num_examples == 3
    assert not killed.exists()


@pytest.mark.parametrize("domain", [name for name in DOMAINS if name != "synfundus_like"])
def test_external_domains_are_test_sets_that_tfds_opens_from_their_folder(
    domain: str, tmp_path: Path
) -> None:
    built = build(domain, SIZE, 4, 0, tmp_path)
    opened = tfds.builder_from_directory(built.data_path)
    assert list(opened.info.splits) == ["test"]
    assert opened.info.features["label"].names == list(DOMAINS[domain].classes)
    source = opened.as_data_source(split="test")
    assert len(source) == 4
    assert source[0]["image"].shape == (SIZE, SIZE, 3)
    assert [source[i]["label"] for i in range(4)] == [
        label_of(domain, sample_case(domain, 0, i)) for i in range(4)
    ]


def test_splits_are_eight_to_one_to_one_and_never_move() -> None:
    keys = [key_of("synfundus_like", 0, index) for index in range(20_000)]
    counts = Counter(split_of(key) for key in keys)
    for split, share in {"train": 0.8, "validation": 0.1, "test": 0.1}.items():
        error = np.sqrt(share * (1 - share) / len(keys))
        assert counts[split] / len(keys) == pytest.approx(share, abs=4 * error)
    held_out = {i: split_of(keys[i]) for i in range(60) if split_of(keys[i]) != "train"}
    assert [i for i, split in held_out.items() if split == "validation"] == [13, 59]
    assert [i for i, split in held_out.items() if split == "test"] == [4, 19, 39, 50, 54]


def test_config_names_say_everything() -> None:
    config = synthetic_config("synfundus_like", 128, 12000, 0)
    assert config.name == "synfundus_like-128px-12000-s0"
    assert key_of("fives_like", 2, 41) == "fives_like-s2-00000041"


def test_tfds_finds_a_config_by_its_name(tmp_path: Path) -> None:
    built = Synthetic(config="fives_like-64px-10-s3", data_dir=tmp_path)
    assert built.builder_config == synthetic_config("fives_like", 64, 10, 3)
    with pytest.raises(ValueError, match="fives-64px not found"):
        Synthetic(config="fives-64px", data_dir=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("fives", 64, 1, 0), "unknown synthetic domain 'fives'"),
        (("fives_like", 8, 1, 0), "size=8"),
        (("fives_like", 64, 0, 0), "count=0"),
        (("fives_like", 64, 1, -1), "seed=-1"),
    ],
)
def test_impossible_datasets_are_refused(
    arguments: tuple[str, int, int, int], message: str, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=message):
        build(*arguments, data_dir=tmp_path)
    assert not any(tmp_path.iterdir())
