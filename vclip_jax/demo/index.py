"""The indexes of the demo: a folder's photographs, and the captions of the training data.

Both are embedded once. Each vector is cached under the SHA-256 of its photograph or caption, in a
file named after the model (`Pretrained.digest`). So a new photograph costs one embedding, a
replaced one is embedded again, and another model has its own file.
"""

import hashlib
import logging
import os
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from vclip_jax import config as config_lib
from vclip_jax.data.images.opening import ImageError
from vclip_jax.data.record import Record
from vclip_jax.datasets import open_source
from vclip_jax.datasets.own.named import expand
from vclip_jax.interop import folder as portable
from vclip_jax.predict.embeddings import FOLDER, load_arrays, save_arrays
from vclip_jax.predict.pretrained import CORES, Pretrained
from vclip_jax.train.sources import open_train

log = logging.getLogger(__name__)

Vectors = dict[bytes, npt.NDArray[np.float32]]


@dataclass(frozen=True)
class Index:
    """Captions or photographs, with their vectors.

    Attributes:
        items: `n` captions, or paths of photographs.
        vectors: their unit vectors, float32 `[n, d]`.
        about: a sentence about their source.
    """

    items: tuple[str, ...]
    vectors: npt.NDArray[np.float32]
    about: str


@dataclass(frozen=True)
class Hit:
    """A search result, with its cosine with the query."""

    item: str
    cosine: float


def nearest(index: Index, query: npt.NDArray[np.floating], count: int) -> list[Hit]:
    """Return the `count` items with the highest cosine with the query `[d]`, best first."""
    cosines = index.vectors @ query
    order = np.argsort(-cosines, kind="stable")[:count]
    return [Hit(index.items[i], float(cosines[i])) for i in order]


def index_folder(
    clip: Pretrained, root: str | os.PathLike[str], cache: str | os.PathLike[str] | None = None
) -> Index:
    """Embed the photographs of a folder, its subfolders included.

    Args:
        clip: the model.
        root: the folder; files that cannot be read are left out and logged.
        cache: the folder of cached vectors; None for `.embeddings` in `root`.

    Raises:
        ValueError: one line: there is no such folder, or none of its photographs can be read.
    """
    if not Path(root).is_dir():
        raise ValueError(f"{os.fspath(root)}: there is no such folder")
    named = expand([os.fspath(root)])
    for note in named.notes:
        log.warning("%s", note)
    paths = named.paths
    file = _file(cache or Path(root, FOLDER), "images", clip)
    known = _load(file)
    with ThreadPoolExecutor(CORES) as pool:
        digests = list(pool.map(_digest, paths))

        def square(digest: bytes) -> np.ndarray | None:
            try:
                return clip.preprocess(path_of[digest])
            except ImageError as error:
                log.warning("left out: %s", error)
                return None

        def embed(wanted: Sequence[bytes]) -> Vectors:
            squares = zip(wanted, pool.map(square, wanted), strict=True)
            good = {digest: pixels for digest, pixels in squares if pixels is not None}
            rows = clip.embed(np.stack(list(good.values()))) if good else ()
            return dict(zip(good, rows, strict=True))

        path_of = {digest: path for path, digest in zip(paths, digests, strict=True) if digest}
        _complete(known, path_of, embed, clip.batch_size, file)
    embedded = [(p, known[d]) for p, d in zip(paths, digests, strict=True) if d in known]
    if not embedded:
        raise ValueError(f"{os.fspath(root)}: none of its {len(paths)} photographs can be read")
    unread = len(paths) - len(embedded)
    left_out = f"; {unread} could not be read" if unread else ""
    return Index(
        tuple(str(path) for path, _ in embedded),
        np.stack([vector for _, vector in embedded]),
        f"{len(embedded)} photographs in {Path(root).absolute().name}/{left_out}",
    )


def index_training_captions(
    clip: Pretrained,
    checkpoint: str | os.PathLike[str],
    most: int,
    data_dir: str | os.PathLike[str] | None = None,
    cache: str | os.PathLike[str] | None = None,
) -> Index:
    """Embed the captions that a run was trained with.

    Args:
        clip: the model of the run.
        checkpoint: the run's workdir.
        most: the largest number of records; of more, evenly spaced ones are taken; 0 for none.
        data_dir: the folder of the built dataset; None for that of the run's config.
        cache: the folder of cached vectors; None for `.embeddings` in `data_dir`.

    Raises:
        ValueError: one line: the reason why there are no captions, such as a missing dataset.
    """
    workdir = Path(checkpoint)
    if (workdir / portable.MODEL).is_file() or not (workdir / "config.json").is_file():
        raise ValueError(
            "a portable folder does not name its training data: start the demo with the workdir of "
            "the run"
        )
    if most < 1:
        raise ValueError("the demo was started with --captions 0")
    config = config_lib.default()
    config.update(config_lib.read(workdir / "config.json"))
    data = config.data
    where = Path(data.data_dir if data_dir is None else data_dir)
    data.data_dir = str(where)
    if data.mixture:
        data.balance = ""
        source: Sequence[Record] = open_train(config)
    else:
        source = open_source(data.dataset, where, data.train_split)
    rows = np.linspace(0, len(source) - 1, min(most, len(source))).round().astype(int)
    captions = sorted({source[row]["caption"] for row in rows})
    for note in clip.readings(captions):  # of all captions, cached ones included
        log.warning("training captions: %s", note)
    file = _file(cache or where / FOLDER, "captions", clip)
    known = _load(file)
    caption_of = {hashlib.sha256(caption.encode()).digest(): caption for caption in captions}

    def embed(wanted: Sequence[bytes]) -> Vectors:
        vectors = clip.encode_text([caption_of[digest] for digest in wanted], quiet=True)
        return dict(zip(wanted, vectors, strict=True))

    _complete(known, caption_of, embed, 1024, file)
    return Index(
        tuple(caption_of.values()),
        np.stack([known[digest] for digest in caption_of]),
        f"{len(captions)} different captions of {len(rows)} of the {len(source)} records of "
        f"{data.dataset or ', '.join(sorted(data.mixture))}, {data.train_split}",
    )


def _complete(
    known: Vectors,
    wanted: Iterable[bytes],
    embed: Callable[[Sequence[bytes]], Vectors],
    step: int,
    file: Path,
) -> None:
    """Embed the wanted items that are not known, `step` at a time, and save the wanted vectors."""
    wanted = list(wanted)
    missing = [digest for digest in wanted if digest not in known]
    if not missing:
        return
    log.info("embedding %d of %d, cached in %s", len(missing), len(wanted), file.parent)
    for start in range(0, len(missing), step):
        known |= embed(missing[start : start + step])
    _save(file, {digest: known[digest] for digest in wanted if digest in known})


def _file(folder: str | os.PathLike[str], what: str, clip: Pretrained) -> Path:
    return Path(folder, f"demo-{what}-{clip.digest[:32]}.npz")


def _digest(path: Path) -> bytes:
    """Return the SHA-256 of a file, or b"" if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "sha256").digest()
    except OSError as error:
        log.warning("left out: %s: %s", path, error.strerror)
        return b""


def _load(path: Path) -> Vectors:
    arrays = load_arrays(path)
    keys, vectors = arrays.get("digests", ()), arrays.get("vectors", ())
    if len(keys) != len(vectors):
        return {}
    return {key.tobytes(): row for key, row in zip(keys, vectors, strict=True)}


def _save(path: Path, vectors: Vectors) -> None:
    digests = np.array([np.frombuffer(key, np.uint8) for key in vectors])
    try:
        save_arrays(path, {"digests": digests, "vectors": np.array(list(vectors.values()))})
    except OSError as error:  # a folder on a read-only disk can be searched without a cache
        log.warning("%s: cannot cache the embeddings: %s", path.parent, error.strerror)
