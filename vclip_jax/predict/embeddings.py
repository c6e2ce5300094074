"""Embeddings of a built dataset's split, computed once and cached.

The name of a cache file depends on everything that its numbers depend on: the model (weights,
configuration, preprocessing, vocabulary, dtype of the computation), the dataset's name and version,
the split, and every byte of the split's files. If the model is trained further or the dataset is
built again, the name changes, so no file becomes stale. Files are NumPy's .npz without pickles,
replaced in one step; a damaged file counts as missing.
"""

import hashlib
import json
import os
import re
import zipfile
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from vclip_jax.data.images.gate import as_bits
from vclip_jax.data.images.preprocess import judged_record
from vclip_jax.data.record import Record
from vclip_jax.datasets.built import find_dataset, open_builder
from vclip_jax.datasets.records import source_of
from vclip_jax.files.foreign import check_regular, parse_json
from vclip_jax.files.writing import replacing
from vclip_jax.predict.pretrained import CORES, Pretrained

FORMAT = 2
"""The version of the files' content, a part of the key."""
MOST_BYTES = 16 << 30
"""The largest accepted file: four million images of 1,024 numbers."""
FOLDER = ".embeddings"
"""The name of the cache folder in the folder of the datasets."""


@dataclass(frozen=True)
class SplitEmbeddings:
    """The embeddings of a split; row i of the images belongs to record i.

    Attributes:
        images: unit vectors float32 `[n, d]`.
        texts: unit vectors of the different captions, float32 `[m, d]`.
        caption_ids: int32 `[n]`, each image's row in `texts` and `captions`.
        labels: int32 `[n]`, -1 for no label.
        gate: int32 `[n]`, the reasons to refuse each photograph, see `gate.as_bits`; 0 for none.
        captions: the `m` different captions, sorted.
        keys: the `n` keys of the records, unique.
        class_names: the names of the labels; empty if they are unknown.

    Examples:
        >>> from vclip_jax.predict.embeddings import embed_split
        >>> found = embed_split(clip, "synthetic", data_dir, "test")
        >>> found.keys[1], found.class_names[found.labels[1]]
        ('messidor_like-s1-00000001', 'moderate diabetic retinopathy')
        >>> len(found.captions), found.images.shape
        (8, (8, 10))
    """

    images: npt.NDArray[np.float32]
    texts: npt.NDArray[np.float32]
    caption_ids: npt.NDArray[np.int32]
    labels: npt.NDArray[np.int32]
    gate: npt.NDArray[np.int32]
    captions: tuple[str, ...]
    keys: tuple[str, ...]
    class_names: tuple[str, ...]


def embed_split(
    clip: Pretrained,
    name: str,
    data_dir: str | os.PathLike[str],
    split: str,
    cache: str | os.PathLike[str] | None = None,
) -> SplitEmbeddings:
    """Return the embeddings of a split, from the cache if they are in it.

    Args:
        clip: the model.
        name, data_dir, split: see `datasets.open_source`.
        cache: the folder of the cache; None for `.embeddings` in `data_dir`.

    Raises:
        DatasetError: the split cannot be opened or read.
        ImageError: an image cannot be used; the error names its key.
        OSError: the cache cannot be written.

    Examples:
        >>> from vclip_jax.predict.embeddings import embed_split
        >>> found = embed_split(clip, "synthetic", data_dir, "test")
        >>> found.images.shape, found.texts.shape
        ((8, 10), (8, 10))
        >>> cosines = found.images @ found.texts.T
        >>> closest = [found.captions[column] for column in cosines.argmax(axis=1)]
        >>> len(closest)
        8
    """
    folder = Path(data_dir, FOLDER) if cache is None else Path(cache)
    plain = re.sub(r"[^\w.+-]+", "-", f"{name}-{split}").strip("-")
    path = folder / f"{plain}-{content_key(clip, name, data_dir, split)[:32]}.npz"
    embeddings = _load(path)
    if embeddings is None:
        embeddings = compute(clip, source_of(open_builder(name, data_dir), name, split))
        _save(path, embeddings)
    return embeddings


def content_key(clip: Pretrained, name: str, data_dir: str | os.PathLike[str], split: str) -> str:
    """Return the SHA-256 of everything that a split's embeddings depend on, in hexadecimal.

    Reads all files of the split.

    Raises:
        DatasetError: as for `embed_split`.
    """
    builder = open_builder(name, data_dir)
    source_of(builder, name, split)  # refuses unknown splits
    directory = find_dataset(name, data_dir)
    parts = builder.info.splits[split].file_instructions
    with ThreadPoolExecutor(CORES) as pool:
        digests = pool.map(_digest, (part.filename for part in parts))
        files = [
            (Path(part.filename).name, part.skip, part.take, digest)
            for part, digest in zip(parts, digests, strict=True)
        ]
    features = _digest(directory / "features.json")
    described = [FORMAT, clip.digest, name, directory.name, split, files, features]
    return hashlib.sha256(json.dumps(described).encode()).hexdigest()


def _digest(path: str | os.PathLike[str]) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _judged(clip: Pretrained, record: Record) -> tuple[npt.NDArray[np.uint8], int]:
    """Return the model's view of a record, and the reasons to refuse it as bits."""
    data = clip.config["data"]
    square, refused = judged_record(
        record,
        data["image_size"],
        data["fit"],
        data["decode"],
        data["enhance"],
        key=f"image {record['key']}",
    )
    return square, as_bits(refused)


def compute(clip: Pretrained, source: Iterable[Record]) -> SplitEmbeddings:
    """Embed all records of a source, without a cache."""
    captions, keys, labels = [], [], []
    gate: list[int] = []
    images = [np.empty((0, clip.embed_dim), np.float32)]
    records = iter(source)
    with ThreadPoolExecutor(CORES) as pool:
        while chunk := list(islice(records, clip.batch_size)):
            squares, refused = zip(
                *pool.map(lambda record: _judged(clip, record), chunk), strict=True
            )
            images.append(clip.embed(np.stack(squares)))
            gate += refused
            captions += [record["caption"] for record in chunk]
            keys += [record["key"] for record in chunk]
            labels += [record["label"] for record in chunk]
    different = sorted(set(captions))
    row_of = {caption: row for row, caption in enumerate(different)}
    return SplitEmbeddings(
        images=np.concatenate(images),
        # Callers that score captions report unread words, also if embeddings come from the cache.
        texts=clip.encode_text(different, quiet=True),
        caption_ids=np.array([row_of[caption] for caption in captions], np.int32),
        labels=np.array(labels, np.int32),
        gate=np.array(gate, np.int32),
        captions=tuple(different),
        keys=tuple(keys),
        class_names=tuple(getattr(source, "class_names", ())),
    )


_WORDS = ("captions", "keys", "class_names")
_ARRAYS = ("images", "texts", "caption_ids", "labels", "gate")


def _save(path: Path, embeddings: SplitEmbeddings) -> None:
    words = {key: json.dumps(getattr(embeddings, key)).encode() for key in _WORDS}
    arrays = {key: getattr(embeddings, key) for key in _ARRAYS}
    arrays |= {key: np.frombuffer(text, np.uint8) for key, text in words.items()}
    save_arrays(path, arrays)


def _load(path: Path) -> SplitEmbeddings | None:
    content = load_arrays(path)
    try:
        words = {
            key: tuple(parse_json(content[key].tobytes(), key, content[key].nbytes))
            for key in _WORDS
        }
        return SplitEmbeddings(**{**content, **words})
    except (ValueError, KeyError, TypeError):
        return None


def save_arrays(path: Path, arrays: Mapping[str, Any]) -> None:
    """Write NumPy arrays as an .npz file in one step, and make its folder if necessary.

    Raises:
        OSError: the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as part, open(part, "wb") as file:
        np.savez(file, **arrays)


def load_arrays(path: Path) -> dict[str, Any]:
    """Read the arrays of a file of `save_arrays`; {} if it is missing or damaged."""
    try:
        check_regular(path)
        with open(path, "rb") as file:
            size = os.fstat(file.fileno()).st_size
            with zipfile.ZipFile(file) as archive:
                # They are stored as they are: no small file unpacks to all memory.
                packed = [entry for entry in archive.infolist() if entry.compress_type]
            if packed or size > MOST_BYTES:
                return {}
            file.seek(0)
            with np.load(file, allow_pickle=False) as arrays:
                return dict(arrays)
    except (OSError, ValueError, EOFError, MemoryError, zipfile.BadZipFile):
        return {}
