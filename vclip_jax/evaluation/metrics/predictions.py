"""The answers behind an evaluation, image by image, and what two systems' answers tell apart.

`predictions/NAME.npz` in a workdir holds, for every image with a label, in the evaluation's order:
`hash` uint64 (of the dataset's name and the image's key, so that any run finds the same image
again), `labels` int32, `probabilities` float32 `[n, c]`; `classes`, their names, and whether they
are `ordered`. The hashes hide nothing: whoever has the keys can compute them. Those of a dataset
that was built with --anonymous lead to its random keys alone.
"""

import hashlib
import io
import os
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
from etils import epath

from vclip_jax.evaluation.metrics import bootstrap
from vclip_jax.files.errors import one_line
from vclip_jax.files.foreign import read_bytes
from vclip_jax.files.writing import write_bytes
from vclip_jax.prompts.order import rises

FOLDER = "predictions"
_MOST = 1 << 30
"""Bytes of a file, packed or not: ours have some kilobytes an evaluation of a thousand images."""
MOST_PAIRS = 10
"""Of systems in one run that are compared."""


@dataclass(frozen=True)
class Predictions:
    """See above; rows belong together."""

    hash: npt.NDArray[np.uint64]
    labels: npt.NDArray[np.int32]
    probabilities: npt.NDArray[np.float32]
    classes: tuple[str, ...]
    ordered: bool = False
    """Whether the classes are grades in rising order."""


def hash_keys(dataset: str, keys: Iterable[str]) -> npt.NDArray[np.uint64]:
    """The first eight bytes of each image's SHA-256, uint64 `[n]`."""
    digests = [hashlib.sha256(f"{dataset}\0{key}".encode()).digest()[:8] for key in keys]
    return np.frombuffer(b"".join(digests), ">u8").astype(np.uint64)


def path_of(workdir: str | os.PathLike[str], name: str) -> epath.Path:
    """Where the answers of one evaluation are."""
    plain = re.sub(r"[^\w .+-]", "_", name)
    return epath.Path(workdir) / FOLDER / f"{plain}.npz"


def save(path: epath.Path, predictions: Predictions) -> None:
    """Put the file in place whole."""
    buffer = io.BytesIO()
    np.savez_compressed(
        buffer,
        hash=predictions.hash,
        labels=predictions.labels,
        probabilities=predictions.probabilities,
        classes=np.array(predictions.classes, np.str_),
        ordered=np.array(predictions.ordered),
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, buffer.getvalue())


def load(path: epath.Path) -> Predictions:
    """Read a file of `save`.

    Raises:
        FileNotFoundError: there is none.
        ValueError: one line: the file is damaged.
    """
    try:
        content = path.read_bytes() if "://" in os.fspath(path) else read_bytes(path, _MOST)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(info.file_size for info in archive.infolist()) > _MOST:
                raise ValueError(f"it unpacks to more than {_MOST:,} bytes")
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            found = Predictions(
                file["hash"],
                file["labels"],
                file["probabilities"],
                classes := tuple(str(name) for name in file["classes"]),
                # Earlier files do not say.
                bool(file["ordered"]) if "ordered" in file else rises(classes),
            )
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, EOFError, OSError, MemoryError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} could not be read: {one_line(error)}") from error
    shape = (len(found.hash), len(found.classes))
    if found.probabilities.shape != shape or found.labels.shape != shape[:1]:
        raise ValueError(f"{path} does not hold an answer for every image")
    return found


def compare(
    first: Predictions,
    second: Predictions,
    *,
    resamples: int = bootstrap.RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """The paired test of two systems, on the images that both have answered.

    Returns:
        `n`, `only_first`, `only_second` (images that the other lacks), `tests`
        (`bootstrap.paired_test`), `resamples` and `seed`.

    Raises:
        ValueError: one line: other classes, no common images, or labels that contradict.
    """
    if first.classes != second.classes:
        raise ValueError(
            f"they have other classes: {', '.join(first.classes)} and {', '.join(second.classes)}"
        )
    common, rows, others = np.intersect1d(first.hash, second.hash, return_indices=True)
    if not len(common):
        raise ValueError("they have no image in common")
    labels = first.labels[rows]
    if wrong := int(np.sum(labels != second.labels[others])):
        raise ValueError(f"{wrong} of their {len(common)} common images have another label")
    return {
        "n": len(common),
        "only_first": len(first.hash) - len(common),
        "only_second": len(second.hash) - len(common),
        "tests": bootstrap.paired_test(
            first.probabilities[rows],
            second.probabilities[others],
            labels,
            ordered=first.ordered and second.ordered,
            resamples=resamples,
            seed=seed,
        ),
        "resamples": resamples,
        "seed": seed,
    }


def compare_each(
    files: Mapping[str, epath.Path], dataset: str, *, resamples: int = bootstrap.RESAMPLES
) -> tuple[list[dict[str, Any]], list[str]]:
    """Every two of several systems or runs, on the images of one dataset that both have answered.

    Args:
        files: name -> where its answers are (`path_of`).
        dataset: what the notices call it.
        resamples: behind each test.

    Returns:
        Dicts of `first`, `second` (names) and what `compare` returns; and notices about what cannot
        be compared.
    """
    found: dict[str, Predictions] = {}
    rows, notices = [], []
    for name, path in files.items():
        try:
            found[name] = load(path)
        except FileNotFoundError:
            notices.append(f"{name} is not compared on {dataset}: there is no {path}.")
        except ValueError as error:
            notices.append(f"{name} is not compared on {dataset}: {error}.")
    for first, second in combinations(found, 2):
        try:
            pair = compare(found[first], found[second], resamples=resamples)
        except ValueError as error:
            notices.append(f"{first} is not compared with {second} on {dataset}: {error}.")
            continue
        rows.append({"first": first, "second": second, **pair})
    return rows, notices


def compare_systems(
    workdir: str | os.PathLike[str], names: Sequence[str]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Evaluations of one run on the same images and classes, such as two prompt sets.

    Returns:
        As `compare_each`, for at most `MOST_PAIRS` pairs, in the order of `names`.
    """
    found: dict[str, Predictions] = {}
    notices = []
    for name in names:
        try:
            found[name] = load(path_of(workdir, name))
        except FileNotFoundError:
            continue
        except ValueError as error:
            notices.append(f"{error}.")
    pairs = [
        (a, b)
        for a, b in combinations(found, 2)
        if found[a].classes == found[b].classes and _same(found[a].hash, found[b].hash)
    ]
    if len(pairs) > MOST_PAIRS:
        notices.append(f"Of {len(pairs)} pairs of systems the first {MOST_PAIRS} are compared.")
    rows = [{"first": a, "second": b, **compare(found[a], found[b])} for a, b in pairs[:MOST_PAIRS]]
    return rows, notices


def _same(a: npt.NDArray[np.uint64], b: npt.NDArray[np.uint64]) -> bool:
    return np.array_equal(np.sort(a), np.sort(b))
