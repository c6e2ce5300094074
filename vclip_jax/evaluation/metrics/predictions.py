"""The predictions behind an evaluation, image by image: `predictions/NAME.csv` in a workdir.

A row is an image with a label, in the evaluation's order; pandas reads the file as it is:

- `dataset` and `key`, which identify the image in any run; `patient`, if the dataset has patients;
- `label` and `answer`, names of classes, and `gate`, the reasons to refuse the photograph (see
  `vclip_jax.data.images.gate`), if it was judged;
- `p:CLASS`, the probability of each class; `p0:CLASS`, `p1:CLASS` ... if the classes are grades in
  rising order;
- the facts of the record (`vclip_jax.data.record.FACTS`) that the dataset has.

The keys and patients are the dataset's own: those of a dataset built with `--anonymous` name
nobody. With a secret (`config.predictions_secret`) they are hashes, the same for runs with the same
secret. Earlier versions wrote `predictions/NAME.npz`, with hashes in place of keys; such files are
read too.
"""

import csv
import hashlib
import hmac
import io
import os
import re
import zipfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import numpy as np
import numpy.typing as npt
from etils import epath

from vclip_jax.data.record import FACTS, Record
from vclip_jax.files.csv_lines import csv_table, from_cell
from vclip_jax.files.errors import one_line
from vclip_jax.files.foreign import read_bytes
from vclip_jax.files.writing import write_bytes
from vclip_jax.prompts.order import rises

FOLDER: Final = "predictions"
_MOST: Final = 1 << 30
"""The largest accepted file in bytes, packed or not; a thousand images take some kilobytes."""
_SCORE: Final = re.compile(r"p(\d*):(.*)", re.DOTALL)
"""The column of a class's probability."""

Hashes = npt.NDArray[np.uint64]


def hash_keys(dataset: str, keys: Iterable[str]) -> Hashes:
    """Return the first eight bytes of the SHA-256 of dataset and key, uint64 `[n]`."""
    digests = [hashlib.sha256(f"{dataset}\0{key}".encode()).digest()[:8] for key in keys]
    return np.frombuffer(b"".join(digests), ">u8").astype(np.uint64)


@dataclass(frozen=True)
class Rows:
    """The names and facts of the images of an evaluation, one entry an image."""

    dataset: str
    keys: tuple[str, ...]
    patients: tuple[str, ...] = ()
    """The names of the patients, "" where unknown; empty if the dataset has none."""
    facts: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Fact -> its values, "" where unknown."""

    @property
    def hash(self) -> Hashes:
        """A hash of each image, uint64 `[n]`."""
        return hash_keys(self.dataset, self.keys)

    @property
    def people(self) -> Hashes | None:
        """A hash of each image's patient, uint64 `[n]`; None if the dataset has no patients.

        An image whose patient is unknown counts as a patient of its own.
        """
        if not any(self.patients):
            return None
        # No patient's name begins with a null character.
        named = (who or f"\0{key}" for key, who in zip(self.keys, self.patients, strict=True))
        return hash_keys(self.dataset, named)

    def only(self, which: npt.NDArray[np.bool_]) -> "Rows":
        """Return the rows that are True in bool `[n]`."""
        chosen = np.flatnonzero(which).tolist()

        def of(values: Sequence[str]) -> tuple[str, ...]:
            return tuple(values[row] for row in chosen) if values else ()

        facts = {name: of(values) for name, values in self.facts.items()}
        return Rows(self.dataset, of(self.keys), of(self.patients), facts)

    def hidden(self, secret: bytes) -> "Rows":
        """Return the rows with keys and patients that only the holder of the secret can compute.

        Raises:
            ValueError: the secret is empty.
        """
        if not secret:
            raise ValueError("the secret is empty")

        def digest(text: str) -> str:
            return hmac.digest(secret, f"{self.dataset}\0{text}".encode(), "sha256")[:8].hex()

        keys = tuple(digest(f"key\0{key}") for key in self.keys)
        patients = tuple(who and digest(f"patient\0{who}") for who in self.patients)
        return replace(self, keys=keys, patients=patients)


def rows_of(source: Iterable[Record], dataset: str) -> Rows:
    """Return keys, patients and facts of all records."""
    keys, patients = [], []
    facts: list[Mapping[str, str]] = []
    for record in source:
        keys.append(record["key"])
        patients.append(record.get("patient", ""))
        facts.append(record.get("facts", {}))
    columns = {
        name: tuple(one.get(name, "") for one in facts)
        for name in FACTS
        if any(name in one for one in facts)
    }
    return Rows(dataset, tuple(keys), tuple(patients) if any(patients) else (), columns)


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
    rows: Rows | None = None
    """The images by name; None in a file of an earlier version, which has only hashes."""
    gate: tuple[str, ...] = ()
    """The reasons to refuse each image, "" for none; empty if they were not judged."""


def predictions_of(
    rows: Rows,
    labels: npt.NDArray[np.integer],
    probabilities: npt.NDArray[np.floating],
    classes: Sequence[str],
    *,
    ordered: bool = False,
    gate: Sequence[str] = (),
) -> Predictions:
    """Return the predictions of images `[n]` by name, with their hashes."""
    return Predictions(
        rows.hash,
        labels.astype(np.int32),
        probabilities.astype(np.float32),
        tuple(classes),
        ordered,
        rows.people,
        rows,
        tuple(gate),
    )


def path_of(workdir: str | os.PathLike[str], name: str) -> epath.Path:
    """Return the path of the predictions of an evaluation."""
    plain = re.sub(r"[^\w .+-]", "_", name)
    return epath.Path(workdir) / FOLDER / f"{plain}.csv"


def save(path: epath.Path, predictions: Predictions) -> None:
    """Write the file in one step.

    Raises:
        ValueError: the predictions are those of an earlier version, without names.
    """
    rows = predictions.rows
    if rows is None:
        raise ValueError("predictions without the images' keys cannot be written")
    names = predictions.classes
    columns: dict[str, Sequence[object]] = {
        "dataset": [rows.dataset] * len(rows.keys),
        "key": rows.keys,
        **({"patient": rows.patients} if rows.patients else {}),
        "label": [names[label] for label in predictions.labels],
        "answer": [names[best] for best in predictions.probabilities.argmax(axis=1)],
        **({"gate": predictions.gate} if predictions.gate else {}),
    }
    for number, name in enumerate(names):
        # The shortest text that reads back as the same float32.
        scores = [str(score) for score in predictions.probabilities[:, number]]
        columns[f"p{number if predictions.ordered else ''}:{name}"] = scores
    columns |= rows.facts
    _write(path, csv_table(columns))


def save_text(workdir: str | os.PathLike[str], name: str, table: str) -> None:
    """Write a table of another kind of predictions, see `evaluation.findings`, in one step."""
    _write(path_of(workdir, name), table)


def _write(path: epath.Path, table: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_bytes(path, table.encode())


def load(path: epath.Path) -> Predictions:
    """Read a file of `save`, or the .npz of an earlier version in its place.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: one line: the file is damaged.
    """
    earlier = path.with_suffix(".npz")
    path = earlier if not path.exists() and earlier.exists() else path
    try:
        content = path.read_bytes() if "://" in os.fspath(path) else read_bytes(path, _MOST)
        found = _from_npz(content) if path.suffix == ".npz" else _from_csv(content.decode())
    except FileNotFoundError:
        raise
    except (
        ValueError,
        KeyError,
        EOFError,
        OSError,
        MemoryError,
        csv.Error,
        zipfile.BadZipFile,
    ) as error:
        raise ValueError(f"{path} could not be read: {one_line(error)}") from error
    shape = (len(found.hash), len(found.classes))
    patients = found.hash if found.patients is None else found.patients
    if (
        found.probabilities.shape != shape
        or found.labels.shape != shape[:1]
        or patients.shape != shape[:1]
    ):
        raise ValueError(f"{path} does not hold a prediction for every image")
    return found


def _from_csv(text: str) -> Predictions:
    header, *lines = csv.reader(io.StringIO(text, newline=""), strict=True)
    header = [from_cell(cell) for cell in header]
    if len(set(header)) < len(header) or not {"dataset", "key", "label"} <= set(header):
        raise ValueError("its columns are not those of predictions")
    if short := next(
        (number for number, line in enumerate(lines, 2) if len(line) != len(header)), 0
    ):
        raise ValueError(f"row {short} has another number of cells than the header")
    columns = {
        name: tuple(map(from_cell, cells))
        for name, cells in zip(header, zip(*lines, strict=True), strict=True)
    }
    scores = {name: match for name in header if (match := _SCORE.fullmatch(name))}
    classes = tuple(match[2] for match in scores.values())
    if len(classes) < 2 or len(set(columns["dataset"])) != 1:
        raise ValueError("it needs two classes and one dataset")
    numbers = {name: number for number, name in enumerate(classes)}
    if unknown := next((label for label in columns["label"] if label not in numbers), None):
        raise ValueError(f"the label {unknown!r} has no column of probabilities")
    rows = Rows(
        columns["dataset"][0],
        columns["key"],
        columns.get("patient", ()),
        {fact: columns[fact] for fact in FACTS if fact in columns},
    )
    return predictions_of(
        rows,
        np.array([numbers[label] for label in columns["label"]]),
        np.array([columns[name] for name in scores], np.float32).T,
        classes,
        ordered=all(match[1] for match in scores.values()),
        gate=columns.get("gate", ()),
    )


def _from_npz(content: bytes) -> Predictions:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        if sum(info.file_size for info in archive.infolist()) > _MOST:
            raise ValueError(f"it unpacks to more than {_MOST:,} bytes")
    with np.load(io.BytesIO(content), allow_pickle=False) as file:
        classes = tuple(str(name) for name in file["classes"])
        # The oldest files lack `ordered`.
        ordered = bool(file["ordered"]) if "ordered" in file else rises(classes)
        return Predictions(
            file["hash"],
            file["labels"],
            file["probabilities"],
            classes,
            ordered,
            file.get("patients"),
        )
