"""The predictions behind an evaluation, image by image, and the comparison of two systems.

`predictions/NAME.npz` in a workdir holds, for every image with a label, in the evaluation's order:
`hash` uint64 (of the dataset's name and the image's key, so that any run identifies the same
image), `labels` int32, `probabilities` float32 `[n, c]`; `patients`, such hashes of the patients,
if the dataset has any; and `classes`, the names of the classes, and `ordered`. The hashes do not
hide keys: anyone who has the keys can compute them. For a dataset built with --anonymous, the keys
are random.
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

from vclip_jax.data.record import Record
from vclip_jax.evaluation.metrics import bootstrap
from vclip_jax.files.errors import few, one_line
from vclip_jax.files.foreign import read_bytes
from vclip_jax.files.writing import write_bytes
from vclip_jax.prompts.order import rises

FOLDER = "predictions"
_MOST = 1 << 30
"""The largest accepted file in bytes, packed or not; a thousand images take some kilobytes."""
MOST_PAIRS = 10
"""The largest number of pairs of evaluations of a run that are compared."""


Hashes = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Predictions:
    """The predictions of an evaluation, see above; row i of each array is image i."""

    hash: Hashes
    labels: npt.NDArray[np.int32]
    probabilities: npt.NDArray[np.float32]
    classes: tuple[str, ...]
    ordered: bool = False
    """True if the classes are grades in rising order."""
    patients: Hashes | None = None
    """A hash of each image's patient; None if the dataset has no patients."""


def hash_keys(dataset: str, keys: Iterable[str]) -> Hashes:
    """Return the first eight bytes of the SHA-256 of dataset and key, uint64 `[n]`."""
    digests = [hashlib.sha256(f"{dataset}\0{key}".encode()).digest()[:8] for key in keys]
    return np.frombuffer(b"".join(digests), ">u8").astype(np.uint64)


def identities(source: Iterable[Record], dataset: str) -> tuple[Hashes, Hashes | None]:
    """Return the hashes of the keys and of the patients of all records, uint64 `[n]` each.

    An image whose patient is unknown counts as a patient of its own. Without any known patient,
    the second is None.
    """
    keys, patients = [], []
    for record in source:
        keys.append(record["key"])
        patients.append(record.get("patient", ""))
    if not any(patients):
        return hash_keys(dataset, keys), None
    # No patient's name begins with a null character.
    named = (patient or f"\0{key}" for key, patient in zip(keys, patients, strict=True))
    return hash_keys(dataset, keys), hash_keys(dataset, named)


def path_of(workdir: str | os.PathLike[str], name: str) -> epath.Path:
    """Return the path of the predictions of an evaluation."""
    plain = re.sub(r"[^\w .+-]", "_", name)
    return epath.Path(workdir) / FOLDER / f"{plain}.npz"


def save(path: epath.Path, predictions: Predictions) -> None:
    """Write the file in one step."""
    buffer = io.BytesIO()
    patients: dict[str, Any] = {}
    if predictions.patients is not None:
        patients["patients"] = predictions.patients
    np.savez_compressed(
        buffer,
        hash=predictions.hash,
        labels=predictions.labels,
        probabilities=predictions.probabilities,
        classes=np.array(predictions.classes, np.str_),
        ordered=np.array(predictions.ordered),
        **patients,
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, buffer.getvalue())


def load(path: epath.Path) -> Predictions:
    """Read a file of `save`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: one line: the file is damaged.
    """
    try:
        content = path.read_bytes() if "://" in os.fspath(path) else read_bytes(path, _MOST)
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(info.file_size for info in archive.infolist()) > _MOST:
                raise ValueError(f"it unpacks to more than {_MOST:,} bytes")
        with np.load(io.BytesIO(content), allow_pickle=False) as file:
            predictions = Predictions(
                file["hash"],
                file["labels"],
                file["probabilities"],
                classes := tuple(str(name) for name in file["classes"]),
                # Earlier files lack it.
                bool(file["ordered"]) if "ordered" in file else rises(classes),
                file.get("patients"),
            )
    except FileNotFoundError:
        raise
    except (ValueError, KeyError, EOFError, OSError, MemoryError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path} could not be read: {one_line(error)}") from error
    shape = (len(predictions.hash), len(predictions.classes))
    patients = predictions.hash if predictions.patients is None else predictions.patients
    if (
        predictions.probabilities.shape != shape
        or predictions.labels.shape != shape[:1]
        or patients.shape != shape[:1]
    ):
        raise ValueError(f"{path} does not hold a prediction for every image")
    return predictions


def compare(
    first: Predictions,
    second: Predictions,
    *,
    resamples: int = bootstrap.RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare two systems by a paired test on the images that both have classified.

    Returns:
        `n`, `only_first`, `only_second` (images that the other lacks), `tests`
        (`bootstrap.paired_test`, over patients if one of the two knows them), `unit`, `units`,
        `resamples` and `seed`.

    Raises:
        ValueError: one line: classes differ, no image is in both, or labels contradict each other.
    """
    if first.classes != second.classes:
        raise ValueError(
            f"their classes differ: {few(first.classes, 20)} and {few(second.classes, 20)}"
        )
    common, rows, others = np.intersect1d(first.hash, second.hash, return_indices=True)
    if not len(common):
        raise ValueError("they have no image in common")
    labels = first.labels[rows]
    if wrong := int(np.sum(labels != second.labels[others])):
        raise ValueError(f"{wrong} of their {len(common)} common images have different labels")
    patients = first.patients[rows] if first.patients is not None else None
    if patients is None and second.patients is not None:
        patients = second.patients[others]
    return {
        "n": len(common),
        "unit": "image" if patients is None else "patient",
        "units": len(common if patients is None else np.unique(patients)),
        "only_first": len(first.hash) - len(common),
        "only_second": len(second.hash) - len(common),
        "tests": bootstrap.paired_test(
            first.probabilities[rows],
            second.probabilities[others],
            labels,
            ordered=first.ordered and second.ordered,
            patients=patients,
            resamples=resamples,
            seed=seed,
        ),
        "resamples": resamples,
        "seed": seed,
    }


def compare_each(
    files: Mapping[str, epath.Path], dataset: str, *, resamples: int = bootstrap.RESAMPLES
) -> tuple[list[dict[str, Any]], list[str]]:
    """Compare every two of several systems or runs on one dataset, see `compare`.

    Args:
        files: name -> path of the predictions (`path_of`).
        dataset: the dataset's name, for the notices.
        resamples: the number of resamples of each test.

    Returns:
        Dicts of `first`, `second` (names) and the result of `compare`; and notices about pairs that
        cannot be compared.
    """
    loaded: dict[str, Predictions] = {}
    rows, notices = [], []
    for name, path in files.items():
        try:
            loaded[name] = load(path)
        except FileNotFoundError:
            notices.append(f"{name} is not compared on {dataset}: there is no {path}.")
        except ValueError as error:
            notices.append(f"{name} is not compared on {dataset}: {error}.")
    for first, second in combinations(loaded, 2):
        try:
            pair = compare(loaded[first], loaded[second], resamples=resamples)
        except ValueError as error:
            notices.append(f"{first} is not compared with {second} on {dataset}: {error}.")
            continue
        rows.append({"first": first, "second": second, **pair})
    return rows, notices


def compare_systems(
    workdir: str | os.PathLike[str], names: Sequence[str]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Compare evaluations of one run on the same images and classes, such as two prompt sets.

    Returns:
        As for `compare_each`, for at most `MOST_PAIRS` pairs, in the order of `names`.
    """
    loaded: dict[str, Predictions] = {}
    notices = []
    for name in names:
        try:
            loaded[name] = load(path_of(workdir, name))
        except FileNotFoundError:
            continue
        except ValueError as error:
            notices.append(f"{error}.")
    pairs = [
        (a, b)
        for a, b in combinations(loaded, 2)
        if loaded[a].classes == loaded[b].classes and _same(loaded[a].hash, loaded[b].hash)
    ]
    if len(pairs) > MOST_PAIRS:
        notices.append(f"Only the first {MOST_PAIRS} of {len(pairs)} pairs are compared.")
    rows = [
        {"first": a, "second": b, **compare(loaded[a], loaded[b])} for a, b in pairs[:MOST_PAIRS]
    ]
    return rows, notices


def _same(a: npt.NDArray[np.uint64], b: npt.NDArray[np.uint64]) -> bool:
    return np.array_equal(np.sort(a), np.sort(b))
