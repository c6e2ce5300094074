"""What a stranger, or a bad disk, may put into images, captions, tables, configs and logs.

Each is a clear error or a counted reject: no crash, no hang, no code, no file outside the target.
Cases that were found by drawing at random stay here as examples.
"""

import contextlib
import csv
import functools
import io
import json
import random
import struct
import zlib
from collections import Counter

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from PIL import Image

from vclip_jax import config as config_lib
from vclip_jax.config import checks
from vclip_jax.data.choices import MODES
from vclip_jax.data.images.decode import decode
from vclip_jax.data.images.fit import FITS
from vclip_jax.data.text.wordpiece import WordPiece
from vclip_jax.datasets.formats.tables import whole
from vclip_jax.datasets.ingest.build import build
from vclip_jax.datasets.own import generic
from vclip_jax.tracking.metrics_log import MetricsLog

IMAGES = 200
TABLES = 50


def outcome(function, *arguments, **options):
    """What it returns, or its message if it refuses; anything else that it raises is a failure."""
    try:
        return function(*arguments, **options), ""
    except ValueError as error:
        return None, str(error)


# --- Images.


def picture(rng: random.Random) -> np.ndarray:
    shape = (rng.randrange(1, 70), rng.randrange(1, 70), 3)
    return np.random.default_rng(rng.randrange(2**32)).integers(0, 256, shape).astype(np.uint8)


def encoded(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def of_some_kind(rng: random.Random) -> bytes:
    kind = rng.choice(["JPEG", "PNG", "TIFF", "BMP", "GIF", "WEBP"])
    mode = rng.choice(["L", "RGB"] + ["1", "P", "LA", "RGBA", "I;16"] * (kind == "PNG"))
    image = Image.fromarray(picture(rng))
    return encoded(
        image.convert("L").convert(mode) if mode == "I;16" else image.convert(mode), kind
    )


def png_chunk(name: bytes, content: bytes) -> bytes:
    checksum = struct.pack(">I", zlib.crc32(name + content))
    return struct.pack(">I", len(content)) + name + content + checksum


def png(width: int, height: int, content: bytes, *extra: bytes) -> bytes:
    """Says that it has so many grey pixels, whatever its content."""
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    end = png_chunk(b"IDAT", content) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(extra) + end


def flipped(rng: random.Random) -> bytes:
    content = bytearray(of_some_kind(rng))
    for _ in range(rng.randrange(1, 20)):
        content[rng.randrange(len(content))] = rng.randrange(256)
    return bytes(content)


def jpeg_of(width: int, height: int) -> bytes:
    """A small JPEG whose header claims that size."""
    content = bytearray(encoded(Image.new("RGB", (8, 8)), "JPEG"))
    frame = content.index(b"\xff\xc0")
    content[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(content)


@functools.cache
def zeros(count: int) -> bytes:
    """So many zero bytes, compressed once: a bomb of 100 MB takes most of a second."""
    return zlib.compress(bytes(count))


def frames(kind: str, count: int) -> bytes:
    several = [Image.new("RGB", (16, 16), (i, 0, 0)) for i in range(count)]
    return encoded(several[0], kind, save_all=True, append_images=several[1:])


HOSTILE = {
    "truncated": lambda rng: (data := of_some_kind(rng))[: rng.randrange(len(data))],
    "flipped bytes": flipped,
    "random bytes": lambda rng: rng.randbytes(rng.randrange(300)),
    "another header": lambda rng: (
        rng.choice(
            [
                b"\xff\xd8\xff\xe0",
                b"\x89PNG\r\n\x1a\n",
                b"GIF89a",
                b"II*\0",
                b"BM",
                b"RIFF\0\0\0\0WEBP",
            ]
        )
        + rng.randbytes(200)
    ),
    "one pixel": lambda rng: encoded(Image.new("RGB", (1, 1)), rng.choice(["JPEG", "PNG"])),
    "a line": lambda rng: encoded(
        Image.new("L", rng.choice([(30_000, 1), (1, 30_000)])), rng.choice(["JPEG", "PNG"])
    ),
    "a bomb": lambda rng: png(30_000, 30_000, zeros(10**6)),
    "a text bomb": lambda rng: png(
        8,
        8,
        zlib.compress(bytes(72)),
        png_chunk(b"zTXt", b"k\0\0" + zeros(10**8)),
    ),
    "a jpeg that claims much": lambda rng: jpeg_of(65_500, rng.choice([65_500, 8, 1])),
    "no pixels": lambda rng: png(rng.choice([0, 8]), 0, b""),
    "2**31 pixels wide": lambda rng: png(2**31 - 1, 1, zlib.compress(bytes(100))),
    "another mode": lambda rng: rng.choice(
        [
            encoded(Image.new("CMYK", (9, 9)), "JPEG"),
            encoded(Image.new("F", (9, 9)), "TIFF"),
            encoded(Image.new("I", (9, 9)), "TIFF"),
            encoded(Image.new("LAB", (9, 9)), "TIFF"),
        ]
    ),
    "animated": lambda rng: frames(rng.choice(["GIF", "WEBP", "PNG", "TIFF"]), 20),
    "exif that lies": lambda rng: encoded(
        Image.new("RGB", (9, 9)), "JPEG", exif=b"Exif\0\0" + rng.randbytes(60)
    ),
    "vector or document": lambda rng: rng.choice(
        [
            b"<svg xmlns='http://www.w3.org/2000/svg'><image href='file:///etc/passwd'/></svg>",
            b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(%pipe%id) (r) file\n",
            b"%PDF-1.4\n",
        ]
    ),
    "nothing": lambda rng: b"",
}


@functools.cache
def hostile(index: int) -> tuple[str, bytes]:
    rng = random.Random(index)
    kind = list(HOSTILE)[index % len(HOSTILE)]
    return kind, HOSTILE[kind](rng)


@pytest.mark.parametrize("mode", MODES)
def test_hostile_images_are_pictures_or_an_error_of_one_line(mode):
    outcomes = Counter()
    for index in range(IMAGES):
        kind, data = hostile(index)
        fit = list(FITS)[index // len(HOSTILE) % len(FITS)]
        square, error = outcome(decode, data, 32, fit, mode, key=f"h/{index}")
        if error:
            outcomes["refused"] += 1
            assert error.startswith(f"h/{index}: "), kind
            assert "\n" not in error, kind
        else:
            outcomes["shown"] += 1
            assert (square.shape, square.dtype) == ((32, 32, 3), np.uint8), kind
    assert outcomes.total() == IMAGES
    assert min(outcomes["refused"], outcomes["shown"]) > 20


@given(
    st.binary(max_size=200), st.sampled_from([b"", b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"BM"])
)
def test_any_bytes_are_a_picture_or_an_error(data, start):
    square, error = outcome(decode, start + data, 8, key="k")
    assert error.startswith("k: ") if error else square.shape == (8, 8, 3)


def test_of_hostile_images_a_build_keeps_or_counts_every_one(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    rows = []
    for index in range(IMAGES):
        (source / f"{index}.png").write_bytes(hostile(index)[1])
        rows.append((f"{index}.png", "正常"))
    with (source / "table.csv").open("w", newline="") as file:
        csv.writer(file).writerows([("image", "caption"), *rows])
    folder = build(
        generic.scan(source, name="hostile"), tmp_path / "data", max_rejects=1, workers=1
    )
    rejects = [json.loads(line) for line in (folder / "rejects.jsonl").read_text().splitlines()]
    kept = [key for path in folder.glob("keys-*.txt") for key in path.read_text().splitlines()]
    assert sorted([*kept, *(reject["key"] for reject in rejects)]) == sorted(r[0] for r in rows)
    assert min(len(kept), len(rejects)) > 0
    assert all(reject["reason"] for reject in rejects)
    assert {path.name for path in tmp_path.iterdir()} == {"source", "data"}


# --- Captions.

CAPTIONS = {
    "empty": "",
    "white space": " \t\n\u3000",
    "a megabyte": "视网膜" * 350_000,
    "a word of a megabyte": "a" * 10**6,
    "control characters": "".join(map(chr, range(32))) + "\x7f\u202e\u2028\ufeff\ufffd",
    "a zero": "正常\0异常",
    "a lone surrogate": "正常\ud800",
    "special tokens": "[CLS][SEP][PAD][MASK]" * 50,
    "marks upon marks": "a" + "\u0301" * 10_000,
    "planes beyond": "𠮷👁️‍🗨️" * 100,
}
TOKENIZER = WordPiece.from_captions(["视网膜正常", "疑似青光眼"])


@pytest.mark.parametrize("kind", CAPTIONS)
def test_captions_become_rows_of_the_length_asked_for(kind):
    row = TOKENIZER.encode([CAPTIONS[kind]], 16)
    assert (row.shape, row.dtype) == ((1, 16), np.int32)
    assert (row < TOKENIZER.vocab_size).all()
    assert (row >= 0).all()


@given(st.lists(st.text(st.characters(codec=None), max_size=40), min_size=1, max_size=3))
@example(["\ud800"])
def test_any_text_becomes_rows(texts):
    assert TOKENIZER.encode(texts, 8).shape == (len(texts), 8)


def test_every_row_of_captions_is_kept_or_counted(tmp_path):
    source = tmp_path / "source"
    source.mkdir()
    lines = []
    for index, caption in enumerate(CAPTIONS.values()):
        image = Image.new("RGB", (40, 40), (index, 9, 9))
        (source / f"{index}.png").write_bytes(encoded(image, "PNG"))
        lines.append(json.dumps({"image": f"{index}.png", "caption": caption}))
    lines.append(json.dumps({"image": "0.png", "caption": None}))
    lines += [
        json.dumps({"image": name, "caption": "x"}) for name in ("\0", "a\ud800.png", "..", "")
    ]
    (source / "table.jsonl").write_text("\n".join(lines))
    folder = build(generic.scan(source, name="words"), tmp_path / "data", max_rejects=1, workers=1)
    rejects = [json.loads(line) for line in (folder / "rejects.jsonl").read_text().splitlines()]
    kept = [key for path in folder.glob("keys-*.txt") for key in path.read_text().splitlines()]
    assert len(kept) + len(rejects) == len(lines)
    assert len(kept) == len(CAPTIONS) - 3  # empty, white space, the surrogate


# --- Tables.


WRONG = (
    "none",
    "duplicate row",
    "missing row",
    "more cells",
    "fewer cells",
    "quotes",
    "twice",
    "cut off",
    "flipped",
    "megabyte",
    "deep",
    "utf-16",
    "no header",
)


def table(index: int) -> tuple[str, bytes, str]:
    """A name, a content, and what is wrong with it."""
    rng = random.Random(index)
    rows = [["image", "caption"], *([f"{i}.png", f"正常{i}"] for i in range(5))]
    newline = rng.choice(["\r\n", "\n", "\r"])
    encoding = rng.choice(["utf-8", "utf-8-sig", "gbk"])
    kind = WRONG[index % len(WRONG)]
    if kind == "duplicate row":
        rows.append(rows[1])
    elif kind == "missing row":
        del rows[3]
    elif kind == "more cells":
        rows[2] += ["x"] * 30
    elif kind == "fewer cells":
        rows[2] = ["1.png"]
    elif kind == "quotes":
        rows[2] = ["1.png", 'a "quoted, text\n with a line']
    elif kind == "twice":
        rows[0] = ["image", "image"]
    elif kind == "megabyte":
        rows[2][1] = "视" * 400_000
    elif kind == "no header":
        del rows[0]
    elif kind == "utf-16":
        encoding = "utf-16"
    if kind == "deep":
        return "t.jsonl", b'{"image": "0.png", "caption": ' + b"[" * 200_000, kind
    file = io.StringIO(newline="")
    csv.writer(file, lineterminator=newline).writerows(rows)
    content = bytearray(file.getvalue().encode(encoding, "replace"))
    if kind == "cut off":
        del content[rng.randrange(len(content)) :]
    elif kind == "flipped":
        for _ in range(5):
            content[rng.randrange(len(content))] = rng.randrange(256)
    return "t.csv", bytes(content), kind


@pytest.mark.parametrize("index", range(TABLES))
def test_a_hostile_table_loses_nothing_silently(tmp_path, index):
    name, content, kind = table(index)
    (tmp_path / name).write_bytes(content)
    image = encoded(Image.new("RGB", (40, 40)), "PNG")
    for i in range(5):
        (tmp_path / f"{i}.png").write_bytes(image)
    listing, error = outcome(generic.scan, tmp_path, name="t")
    if error:
        assert "\n" not in error
        assert kind not in ("none", "duplicate row", "missing row", "megabyte", "utf-16")
        return
    # Every image is an item or a reject; other rejects are rows.
    accounted = {item.key for item in listing.items} | {one.key for one in listing.rejects}
    assert accounted >= {f"{i}.png" for i in range(5)}
    if kind in ("none", "megabyte", "utf-16"):
        assert len(listing.items) == 5


def test_a_number_of_ten_thousand_digits_is_no_grade():
    assert whole("9" * 10_000, 4) is None


def test_a_table_that_cannot_be_read_is_not_passed_over_for_the_folders(tmp_path):
    for name in ("normal", "glaucoma"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(encoded(Image.new("RGB", (40, 40)), "PNG"))
    (tmp_path / "labels.csv").write_text("image,image,caption\nnormal/1.png,,x\n")
    with pytest.raises(ValueError, match=r"labels\.csv: the column 'image' occurs twice"):
        generic.scan(tmp_path, name="t")


# --- Configs and logs.


@pytest.mark.parametrize("content", ["", "{", "[]", "null", '{"a"', "[" * 100_000, "\ud800"])
def test_a_damaged_config_of_a_run_is_one_line_with_its_name(tmp_path, content):
    path = tmp_path / "config.json"
    path.write_bytes(content.encode("utf-8", "surrogatepass"))
    with pytest.raises(ValueError, match=r"config\.json") as caught:
        config_lib.save_or_check(config_lib.default(), tmp_path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content.encode("utf-8", "surrogatepass")


@pytest.mark.parametrize("line", ["{", "[]", '{"loss": 1}', '{"step": "x"}', "nonsense", "\ud800"])
def test_a_damaged_line_of_a_log_is_named_and_not_removed(tmp_path, line):
    path = tmp_path / "metrics.jsonl"
    good = b'{"step": 1, "loss": 2.0}\n'
    content = good + line.encode("utf-8", "surrogatepass") + b"\n" + good
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"metrics\.jsonl, line 2, is damaged") as caught:
        MetricsLog(path)
    assert "\n" not in str(caught.value)
    assert path.read_bytes() == content


@given(
    st.text(max_size=30), st.one_of(st.none(), st.integers(), st.text(max_size=9), st.booleans())
)
def test_any_override_is_known_or_refused_with_the_nearest(key, value):
    with contextlib.suppress(ValueError):
        checks.check_overrides([f"--config.{key}={value}"])
