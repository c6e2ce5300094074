"""Valid files of every format that strangers hand in, ways to damage them, and who reads them.

For `fuzz.py` and `fuzz_guided.py`. Everything is a function of the seed and the file's number.
"""

import contextlib
import io
import json
import random
import shutil
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

SIDE = 40
TEXTS = ("正常眼底", "疑似青光眼", "an eye", 'a "quoted", one', "x\ty\nz", "")
NUMBERS = (0, 1, -1, 2**31 - 1, 2**31, 2**32 - 1, 2**63, 10**30, 1e308, 0.5)
HOSTILE: tuple[Any, ...] = (
    None,
    True,
    [],
    {},
    "",
    "x" * 5000,
    "\x1b[2J\u202e",
    "\ud800",
    [[1]],
    {"a": {"b": 1}},
    *NUMBERS,
)


@dataclass(frozen=True)
class Format:
    """One kind of file.

    Attributes:
        name: of the format and of the file.
        make: a valid file, from a random generator.
        damage: the file, a generator -> another.
        read: what the package does with such a file; raises ValueError or OSError.
        share: how many of the files, in proportion.
    """

    name: str
    make: Callable[[random.Random], bytes]
    damage: Callable[[bytes, random.Random], bytes]
    read: Callable[[Path], object]
    share: int = 4


# --- Damage.


def flip(data: bytes, rng: random.Random) -> bytes:
    """Bytes changed, cut, doubled, or numbers of four bytes put in."""
    content = bytearray(data)
    for _ in range(rng.choice((1, 1, 2, 5, 20))):
        at = rng.randrange(len(content) + 1)
        end = min(len(content), at + rng.choice((1, 2, 4, 16, 200)))
        match rng.randrange(7):
            case 0 if at < len(content):
                content[at] = rng.randrange(256)
            case 1 if at < len(content):
                content[at] ^= 1 << rng.randrange(8)
            case 2:
                del content[at:end]
            case 3:
                content[at:at] = content[at:end] * rng.choice((1, 1, 50))
            case 4:
                content[at:at] = rng.randbytes(rng.randrange(1, 9))
            case 5:
                number = rng.choice((0, 1, 255, 256, 65535, 2**31 - 1, 2**32 - 1))
                content[at : at + 4] = struct.pack(rng.choice(("<I", ">I")), number)
            case 6 if rng.randrange(4) == 0:
                del content[at:]
    return bytes(content)


def tear(value: object, rng: random.Random, depth: int = 0) -> object:
    """A JSON value with some part of it replaced, left out, added or wrapped."""
    if depth and rng.random() < 0.15:
        return rng.choice(HOSTILE)
    if isinstance(value, dict) and value:
        key = rng.choice(list(value))
        match rng.randrange(6):
            case 0:
                return {k: v for k, v in value.items() if k != key}
            case 1:
                return value | {rng.choice(("", "x", "type", "\x1b", key + "x")): value[key]}
            case _:
                return value | {key: tear(value[key], rng, depth + 1)}
    if isinstance(value, list) and value:
        index = rng.randrange(len(value))
        match rng.randrange(5):
            case 0:
                return value[:index] + value[index + 1 :]
            case 1:
                return value * 2
            case _:
                changed = tear(value[index], rng, depth + 1)
                return [*value[:index], changed, *value[index + 1 :]]
    return rng.choice(HOSTILE)


def tear_json(data: bytes, rng: random.Random) -> bytes:
    """JSON that is torn, or now and then the text of it damaged."""
    match rng.randrange(8):
        case 0:
            return flip(data, rng)
        case 1:
            return rng.choice((b"[" * 100_000, b'{"a":' * 50_000, b"NaN", b"", b"\xef\xbb\xbf{}"))
        case 2:
            word = rng.choice((b"NaN", b"-Infinity", b"1e999", b"9" * 5000, b'"\\ud800"'))
            return data.replace(rng.choice((b"1", b"0", b"true", b'"')), word, 1)
    value = json.loads(data)
    for _ in range(rng.choice((1, 1, 2, 4))):
        value = tear(value, rng)
    return json.dumps(value).encode()


def tear_lines(data: bytes, rng: random.Random) -> bytes:
    """Some line of JSON lines torn."""
    lines = data.split(b"\n")
    at = rng.randrange(len(lines))
    lines[at] = tear_json(lines[at] or b"{}", rng)
    return b"\n".join(lines) if rng.randrange(4) else flip(data, rng)


def tear_zip(data: bytes, rng: random.Random) -> bytes:
    """A member damaged and packed again, or the archive itself."""
    if rng.randrange(3) == 0:
        return flip(data, rng)
    target = io.BytesIO()
    method = rng.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    with zipfile.ZipFile(io.BytesIO(data)) as old, zipfile.ZipFile(target, "w", method) as new:
        names = old.namelist()
        chosen = rng.choice(names)
        for name in names:
            content = old.read(name)
            if name == chosen:
                content = flip(content, rng)
                content = content if rng.randrange(10) else b""
            if name != chosen or rng.randrange(15):
                new.writestr(name, content)
    return target.getvalue()


def tear_safetensors(data: bytes, rng: random.Random) -> bytes:
    """The header torn, with its length put right."""
    if rng.randrange(3) == 0:
        return flip(data, rng)
    size = int.from_bytes(data[:8], "little")
    header = tear_json(data[8 : 8 + size], rng)
    return len(header).to_bytes(8, "little") + header + data[8 + size :]


# --- Valid files.


def pixels(rng: random.Random, *shape: int) -> np.ndarray:
    return np.random.default_rng(rng.randrange(2**32)).integers(0, 256, shape).astype(np.uint8)


def picture(kind: str) -> Callable[[random.Random], bytes]:
    def make(rng: random.Random) -> bytes:
        from PIL import Image

        modes = {
            "JPEG": ("RGB", "L", "CMYK"),
            "PNG": ("RGB", "L", "P", "RGBA", "1", "LA"),
            "TIFF": ("RGB", "L", "RGBA", "CMYK", "P", "1"),
            "BMP": ("RGB", "L", "P"),
            "WEBP": ("RGB", "RGBA"),
            "PPM": ("RGB", "L", "1"),
        }[kind]
        image = Image.fromarray(pixels(rng, SIDE, SIDE + rng.randrange(9), 3))
        options: dict[str, object] = {}
        if kind == "JPEG":
            options = {"progressive": rng.random() < 0.4, "quality": rng.choice((30, 92, 100))}
            if rng.random() < 0.3:
                exif = Image.Exif()
                exif[0x0112] = rng.randrange(10)
                options["exif"] = exif
        if kind == "TIFF":
            options = {"compression": rng.choice((None, "tiff_lzw", "tiff_deflate", "packbits"))}
        if kind == "WEBP":
            options = {"lossless": rng.random() < 0.5}
        buffer = io.BytesIO()
        image.convert(rng.choice(modes)).save(buffer, kind, **options)
        return buffer.getvalue()

    return make


def rows(rng: random.Random) -> list[list[object]]:
    found: list[list[object]] = [["image", "label", "caption", "split"]]
    for index in range(rng.randrange(1, 9)):
        label = rng.choice(("0", "1.0", "dr", 2, 3.5, ""))
        found.append([f"{index}.png", label, rng.choice(TEXTS), rng.choice(("train", "test", ""))])
    return found


def delimited(comma: str) -> Callable[[random.Random], bytes]:
    def make(rng: random.Random) -> bytes:
        import csv

        file = io.StringIO(newline="")
        ends = rng.choice(("\r\n", "\n"))
        csv.writer(file, delimiter=comma, lineterminator=ends).writerows(rows(rng))
        return file.getvalue().encode(rng.choice(("utf-8", "utf-8-sig", "gb18030", "utf-16")))

    return make


def xlsx(rng: random.Random) -> bytes:
    import openpyxl

    book = openpyxl.Workbook()
    for row in rows(rng):
        book.active.append(row)
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


def xls(rng: random.Random) -> bytes:
    import xlwt

    book = xlwt.Workbook()
    sheet = book.add_sheet("Sheet1")
    for y, row in enumerate(rows(rng)):
        for x, cell in enumerate(row):
            sheet.write(y, x, cell)
    buffer = io.BytesIO()
    book.save(buffer)
    return buffer.getvalue()


def json_lines(rng: random.Random) -> bytes:
    header, *lines = rows(rng)
    return b"\n".join(json.dumps(dict(zip(header, line, strict=True))).encode() for line in lines)


def parquet(rng: random.Random) -> bytes:
    import pyarrow
    import pyarrow.parquet

    count = rng.randrange(1, 9)
    table = pyarrow.table(
        {
            "image": [{"bytes": rng.randbytes(50), "path": f"{i}.png"} for i in range(count)],
            "label": [rng.choice((0, 1, None)) for _ in range(count)],
            "text": [rng.choice(TEXTS) for _ in range(count)],
        }
    )
    buffer = io.BytesIO()
    kind = rng.choice(("snappy", "zstd", "none"))
    pyarrow.parquet.write_table(table, buffer, compression=kind, row_group_size=4)
    return buffer.getvalue()


def tar(rng: random.Random) -> bytes:
    buffer = io.BytesIO()
    kind = rng.choice((tarfile.USTAR_FORMAT, tarfile.PAX_FORMAT, tarfile.GNU_FORMAT))
    with tarfile.open(fileobj=buffer, mode="w", format=kind) as archive:
        for index in range(rng.randrange(1, 4)):
            note = json.dumps({"caption": rng.choice(TEXTS), "label": "x", "key": str(index)})
            for suffix, data in (("jpg", b"\xff\xd8x"), ("json", note.encode()), ("cls", b"1")):
                info = tarfile.TarInfo(f"{'眼' * rng.choice((1, 25))}{index}.{suffix}")
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
    return buffer.getvalue()


def archive(rng: random.Random) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as opened:
        for index in range(3):
            opened.writestr(f"{index}.png", rng.randbytes(100))
    return buffer.getvalue()


def state(rng: random.Random) -> dict[str, np.ndarray]:
    shapes = {
        "module.visual.conv1.weight": (4, 3, 3, 3),
        "module.visual.bn1.bias": (4,),
        "module.text_projection": (8, 6),
        "module.bert.embeddings.word_embeddings.weight": (9, 8),
        "module.logit_scale": (),
        "module.bert.encoder.layer.0.output.dense.bias": (8,),
    }
    return {name: pixels(rng, *shape).astype(np.float32) for name, shape in shapes.items()}


def torch_file(rng: random.Random) -> bytes:
    import tempfile

    from vclip_jax.interop.pytorch import checkpoints as torch_zip

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "a.pt"
        torch_zip.write(path, {"epoch": 3, "name": "x", "state_dict": state(rng), "lr": (0.1, [])})
        return path.read_bytes()


def safetensors(rng: random.Random) -> bytes:
    from safetensors.numpy import save

    return save(state(rng), {"vclip_jax": json.dumps({"kind": "clip"})})


def as_json(content: object) -> Callable[[random.Random], bytes]:
    def make(rng: random.Random) -> bytes:
        del rng
        return json.dumps(content).encode()

    return make


TOKENIZER = {
    "version": "1.0",
    "truncation": None,
    "padding": {
        "strategy": "BatchLongest",
        "direction": "Right",
        "pad_to_multiple_of": None,
        "pad_id": 0,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    },
    "added_tokens": [
        {
            "id": 0,
            "content": "[PAD]",
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": True,
        }
    ],
    "normalizer": {
        "type": "Sequence",
        "normalizers": [
            {"type": "NFC"},
            {"type": "Replace", "pattern": {"Regex": "\\s+"}, "content": " "},
            {"type": "Lowercase"},
        ],
    },
    "pre_tokenizer": {
        "type": "Sequence",
        "pretokenizers": [
            {
                "type": "Split",
                "pattern": {"Regex": "'s|[\\p{L}]+|[\\p{N}]|[^\\s\\p{L}\\p{N}]+"},
                "behavior": "Removed",
                "invert": True,
            },
            {
                "type": "ByteLevel",
                "add_prefix_space": False,
                "trim_offsets": True,
                "use_regex": False,
            },
        ],
    },
    "post_processor": {
        "type": "RobertaProcessing",
        "sep": ["</s>", 2],
        "cls": ["<s>", 1],
        "trim_offsets": False,
        "add_prefix_space": False,
    },
    "decoder": None,
    "model": {
        "type": "BPE",
        "dropout": None,
        "unk_token": "a",
        "continuing_subword_prefix": "",
        "end_of_word_suffix": "</w>",
        "fuse_unk": False,
        "byte_fallback": False,
        "vocab": {"[PAD]": 0, "<s>": 1, "</s>": 2, "a": 3, "b": 4, "ab": 5},
        "merges": ["a b"],
    },
}
PROMPTS = {
    "dataset": "fives",
    "language": "zh",
    "source": "a test",
    "templates": ["{}", "眼底，{}"],
    "classes": [{"name": "dr", "prompts": ["糖网", "x"]}, {"name": "normal", "prompts": ["正常"]}],
    "groups": [{"name": "a", "members": [0]}, {"name": "b", "members": [1]}],
}
HF_CLIP = {
    "model_type": "clip",
    "projection_dim": 16,
    "vision_config": {
        "hidden_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 256,
        "patch_size": 16,
        "image_size": 32,
    },
    "text_config": {
        "hidden_size": 64,
        "num_hidden_layers": 1,
        "num_attention_heads": 1,
        "intermediate_size": 256,
        "max_position_embeddings": 77,
        "vocab_size": 99,
    },
}
HF_BERT = {
    "model_type": "bert",
    "hidden_size": 64,
    "num_hidden_layers": 1,
    "num_attention_heads": 1,
    "intermediate_size": 256,
    "max_position_embeddings": 77,
    "vocab_size": 99,
    "hidden_act": "gelu",
    "type_vocab_size": 2,
    "layer_norm_eps": 1e-12,
    "pad_token_id": 0,
}


def portable(rng: random.Random) -> bytes:
    del rng
    from vclip_jax.interop.weights import complete_config

    return json.dumps(complete_config({}, origin="fuzz")).encode()


def vocabulary(rng: random.Random) -> bytes:
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *"视网膜正常", "##a", str(rng.random())]
    return "".join(f"{token}\n" for token in tokens).encode()


# --- Who reads them.


def read_picture(path: Path) -> None:
    from vclip_jax.data.choices import MODES
    from vclip_jax.data.images import decode
    from vclip_jax.datasets.ingest import store

    data = path.read_bytes()
    failed: ValueError | None = None
    for side, convert in ((512, False), (32, True), (0, True)):
        try:
            store.store(data, store.Storage(side, convert=convert))
        except ValueError as error:
            one_line(error)
    for mode in MODES:
        try:
            decode.decode(data, 32, "pad", mode, key="k")
        except ValueError as error:
            one_line(error)
            failed = error
    if failed:
        raise failed


def one_line(error: BaseException) -> None:
    if "\n" in str(error):
        raise AssertionError(f"more than one line: {error}") from error


@contextlib.contextmanager
def also(words: str = "") -> Iterator[None]:
    """What is refused with these words, as it should be, in one line."""
    try:
        yield
    except (ValueError, OSError) as error:
        one_line(error)
        if words not in str(error):
            raise


def read_table(path: Path) -> None:
    from vclip_jax.datasets.formats import tables

    for row in tables.read_table(path):
        assert all(isinstance(value, str) for value in row.values())


def read_parquet(path: Path) -> None:
    from vclip_jax.datasets.formats import blobs
    from vclip_jax.datasets.formats import parquet as reader
    from vclip_jax.datasets.listing import Blob

    read_table(path)
    column = reader.image_column(path)
    reader.class_names(path, "label")
    if column:
        for row, _ in enumerate(reader.rows(path, column, reader.flat_columns(path))):
            blobs.read(Blob(str(path), f"{column}:{row}"))


def read_tar(path: Path) -> None:
    from vclip_jax.datasets.formats import blobs, webdataset

    for sample in webdataset.scan_tar(path)[0]:
        if sample.image is not None:
            blobs.read(sample.image)


def read_zip(path: Path) -> None:
    from vclip_jax.datasets.formats import blobs
    from vclip_jax.datasets.listing import Blob
    from vclip_jax.datasets.readers import synfundus_files

    synfundus_files.index_images(path.parent)
    for index in range(3):
        blobs.read(Blob(str(path), f"{index}.png"))


def read_state(path: Path) -> None:
    from vclip_jax.interop.systems import state_dicts

    state_dicts.read(path)


def read_cn_clip(path: Path) -> None:
    from vclip_jax.interop.systems import cn_clip

    with also("does not fit"):  # most of its weights are missing
        cn_clip.load(path)


def read_alone(path: Path) -> None:
    from vclip_jax.interop import folder

    with also("does not fit"):
        folder.load_file_alone(path)


def read_tokenizer(path: Path) -> None:
    from vclip_jax.data.text.tokenizer_json import FastTokenizer

    tokenizer = FastTokenizer.from_file(path)
    ids = tokenizer.encode(["a b ab's", "眼底 " * 50, ""], 12)
    assert 0 <= ids.min() <= ids.max() < tokenizer.vocab_size


def read_vocabulary(path: Path) -> None:
    from vclip_jax.data.text.wordpiece import WordPiece

    WordPiece.from_vocab(path).encode(["正常 a"], 8)


def read_portable(path: Path) -> None:
    from vclip_jax.files.foreign import read_json
    from vclip_jax.interop.weights import complete_config

    complete_config(read_json(path), origin=str(path))


def read_prompts(path: Path) -> None:
    from vclip_jax import prompts

    prompts.load(str(path.rename(path.with_name("p.json"))))


def beside(path: Path, name: str) -> Path:
    return path.rename(path.with_name(name)).parent


def read_hf_clip(path: Path) -> None:
    from vclip_jax.interop.systems import hf_clip

    with also("has neither"):  # weights
        hf_clip.load(beside(path, "config.json"))


def read_hf_bert(path: Path) -> None:
    from vclip_jax.interop.systems import hf_bert

    with also("has neither"):
        hf_bert.load(beside(path, "config.json"))


class Dataset:
    """A built dataset of one record, one file of which is damaged."""

    def __init__(self, name: str):
        self.name = name
        self.folder: Path | None = None

    def build(self) -> Path:
        if self.folder is None:
            import tempfile

            from PIL import Image

            from vclip_jax.datasets.ingest import build as ingest
            from vclip_jax.datasets.listing import Blob, Item, Listing

            folder = Path(tempfile.mkdtemp(prefix="vclip-fuzz-"))
            Image.fromarray(pixels(random.Random(0), SIDE, SIDE, 3)).save(folder / "a.png")
            item = Item("a", "train", Blob(str(folder / "a.png")), "眼底", 0)
            ingest.build(Listing("toy", ("x", "y"), [item]), folder / "data", workers=1)
            self.folder = folder / "data"
        return self.folder

    def make(self, rng: random.Random) -> bytes:
        del rng
        return next(self.build().glob(f"toy/*/*/{self.name}")).read_bytes()

    def read(self, path: Path) -> None:
        from vclip_jax.datasets import open_source

        folder = shutil.copytree(self.build(), path.parent / "data")
        path.rename(next(folder.glob(f"toy/*/*/{self.name}")))
        list(open_source("toy", folder, "train"))


class Checkpoint:
    """A checkpoint of two small arrays, one file of whose metadata is damaged."""

    def __init__(self, name: str):
        self.name = name
        self.folder: Path | None = None

    def parts(self):
        import jax
        import optax

        from vclip_jax.devices import sharding
        from vclip_jax.train.state import TrainState

        params = {"a": jax.numpy.ones((2, 3)), "b": jax.numpy.zeros(4)}
        state = TrainState(jax.numpy.int32(2), params, {}, optax.sgd(1e-3).init(params))
        mesh = sharding.make_mesh(1, jax.devices()[:1])
        return state, sharding.state_sharding(state, mesh, [])

    def build(self) -> Path:
        if self.folder is None:
            import tempfile

            import jax

            from vclip_jax.train.checkpoint import Checkpoints

            self.folder = Path(tempfile.mkdtemp(prefix="vclip-fuzz-"))
            state, layout = self.parts()
            with Checkpoints(self.folder) as checkpoints:
                checkpoints.save(jax.device_put(state, layout), 2)
        return self.folder

    def make(self, rng: random.Random) -> bytes:
        del rng
        return (self.build() / "checkpoints" / self.name).read_bytes()

    def read(self, path: Path) -> None:
        import jax

        from vclip_jax.train.checkpoint import Checkpoints

        folder = shutil.copytree(self.build(), path.parent / "run")
        path.rename(folder / "checkpoints" / self.name)
        state, layout = self.parts()
        abstract = jax.eval_shape(lambda: state)
        with Checkpoints(folder, read_only=True) as checkpoints:
            checkpoints.restore_model(abstract, layout)


def formats() -> list[Format]:
    """All of them."""
    features, info = Dataset("features.json"), Dataset("dataset_info.json")
    checkpoints = [
        Checkpoint(f"2/{name}")
        for name in ("_CHECKPOINT_METADATA", "position/metadata", "state/_METADATA")
    ]
    return [
        *(
            Format(name, picture(kind), flip, read_picture, 8)
            for name, kind in (
                ("jpg", "JPEG"),
                ("png", "PNG"),
                ("tif", "TIFF"),
                ("bmp", "BMP"),
                ("webp", "WEBP"),
                ("ppm", "PPM"),
            )
        ),
        Format("csv", delimited(","), flip, read_table, 8),
        Format("tsv", delimited("\t"), flip, read_table, 8),
        Format("xlsx", xlsx, tear_zip, read_table, 1),
        Format("xls", xls, flip, read_table, 1),
        Format("jsonl", json_lines, tear_lines, read_table, 8),
        Format("json", json_lines, tear_lines, read_table),
        Format("parquet", parquet, flip, read_parquet, 8),
        Format("tar", tar, flip, read_tar, 8),
        Format("zip", archive, tear_zip, read_zip, 8),
        Format("pt", torch_file, tear_zip, read_state, 8),
        Format("cn_clip.pt", torch_file, tear_zip, read_cn_clip, 1),
        Format("safetensors", safetensors, tear_safetensors, read_state, 8),
        Format("model.safetensors", safetensors, tear_safetensors, read_alone, 1),
        Format("tokenizer.json", as_json(TOKENIZER), tear_json, read_tokenizer, 8),
        Format("vocab.txt", vocabulary, flip, read_vocabulary),
        Format("config.json", portable, tear_json, read_portable, 8),
        Format("hf_clip.json", as_json(HF_CLIP), tear_json, read_hf_clip),
        Format("hf_bert.json", as_json(HF_BERT), tear_json, read_hf_bert),
        Format("prompts.json", as_json(PROMPTS), tear_json, read_prompts, 8),
        Format("features.json", features.make, tear_json, features.read, 2),
        Format("dataset_info.json", info.make, tear_json, info.read, 2),
        *(
            Format(f"checkpoint-{one.name.replace('/', '-')}", one.make, tear_json, one.read, 1)
            for one in checkpoints
        ),
    ]
