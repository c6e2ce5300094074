"""The photographs that `vclip embed` is asked for: those of a built dataset, or files."""

import hashlib
import json
import os
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise
from pathlib import Path
from typing import Any

from vclip_jax.data.images.opening import ImageError
from vclip_jax.data.images.preprocess import judged_record, preprocess_file
from vclip_jax.data.record import FACTS, Record
from vclip_jax.datasets.built import find_dataset, names_dataset, open_builder
from vclip_jax.datasets.own.named import LISTS, expand
from vclip_jax.datasets.records import source_of
from vclip_jax.files.foreign import MOST_IMAGE, read_bytes
from vclip_jax.predict.embed.columns import FINDING, Seen

Look = Callable[[int, Mapping[str, Any]], Seen]


@dataclass(frozen=True)
class Photographs:
    """The photographs to embed, in the order of the rows."""

    said: str
    """Number and kind of the photographs, for a note."""
    about: Mapping[str, Any]
    """Facts about the photographs for the file's metadata."""
    digest: str
    """SHA-256 of what identifies the photographs: a dataset's content; names, sizes and times of
    files."""
    count: int
    look: Look
    """Reads photograph i as the model sees it, by `data` of a portable configuration; called by
    several threads."""
    findings: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    """Sentences on skipped files."""


def find(
    inputs: Sequence[str], data_dir: str, split: str | None = None, stdin: Iterable[str] = ()
) -> Photographs:
    """Return the photographs that a command line means.

    Args:
        inputs: the name of one built dataset; or images, folders, lists, "-".
        data_dir: the folder of built datasets.
        split: splits of the dataset; None for all, or for files.
        stdin: a path a line, for "-".

    Raises:
        ValueError: one line: there is no such dataset or file, or the name may mean both.
    """
    if split is not None:
        if len(inputs) > 1:
            raise ValueError("--split is for one built dataset: name one dataset, or no --split")
        return of_dataset(inputs[0], data_dir, split)
    if names_dataset(inputs, data_dir):
        return of_dataset(inputs[0], data_dir)
    return of_files(inputs, stdin)


# --- A built dataset.


def of_dataset(name: str, data_dir: str, split: str | None = None) -> Photographs:
    """Return the photographs of a built dataset, see `datasets.open_source`.

    Args:
        name, data_dir: the dataset.
        split: splits in TFDS's notation; None for all.

    Raises:
        ValueError: one line: the dataset cannot be opened, is empty, or gives a record twice.
    """
    builder = open_builder(name, data_dir)
    split = split if split is not None else "+".join(sorted(builder.info.splits))
    records = source_of(builder, name, split)
    if not len(records):
        raise ValueError(f"{name}: the split {split} has no photograph")
    directory = find_dataset(name, data_dir)
    built = directory.parent.relative_to(data_dir).as_posix()
    instructions = builder.info.splits[split].file_instructions
    _check_once(name, split, instructions)
    ends = list(accumulate(one.take for one in instructions))
    splits = [_split_of(one.filename) for one in instructions]
    content = records.digest()

    def look(index: int, data: Mapping[str, Any]) -> Seen:
        record = records[index]
        row = _row(record, records.class_names) | {"split": splits[bisect_right(ends, index)]}
        picture = hashlib.sha256(record["image"]).hexdigest()
        try:
            square, refused = judged_record(
                record,
                data["image_size"],
                data["fit"],
                data["decode"],
                data["enhance"],
                key=record["key"],
            )
        except ImageError as error:
            return Seen(row, picture, error=_reason(error, record["key"]))
        return Seen(row, picture, square, refused)

    return Photographs(
        said=f"{len(records):,} photographs of the built dataset {built}, {split}",
        about={
            "dataset": built,
            "dataset_version": directory.name,
            "dataset_sha256": content,
            "split": split,
            "classes": list(records.class_names),
        },
        digest=_digest([built, directory.name, content, split, records.class_names]),
        count=len(records),
        look=look,
        findings=records.finding_names,
    )


def _row(record: Record, classes: Sequence[str]) -> dict[str, Any]:
    label = record["label"]
    known = label < len(classes)  # a dataset of another program may not name its classes
    facts = record.get("facts", {})
    rated = {name: None if v < 0 else v for name, v in record.get("findings", {}).items()}
    return {
        "key": record["key"],
        "label": None if label < 0 else classes[label] if known else str(label),
        "caption": record["caption"],
        "patient": record.get("patient") or None,
        **{name: facts.get(name) for name in FACTS},
        **{f"{FINDING}{name}": value for name, value in rated.items()},
    }


def _split_of(filename: str) -> str:
    """Return the split of a file that TFDS names NAME-SPLIT.array_record-00000-of-00001."""
    return os.path.basename(filename).rpartition(".array_record-")[0].rpartition("-")[2]


def _check_once(name: str, split: str, instructions: Sequence[Any]) -> None:
    ranges = defaultdict(list)
    for one in instructions:
        ranges[one.filename].append((one.skip, one.skip + one.take))
    for found in map(sorted, ranges.values()):
        if any(before[1] > after[0] for before, after in pairwise(found)):
            raise ValueError(f"{name}: the split {split} names records twice: name each one once")


# --- Files.


def of_files(inputs: Sequence[str], stdin: Iterable[str] = ()) -> Photographs:
    """Return the photographs of images, folders and lists, as `vclip predict` finds them.

    Raises:
        ValueError: one line: an input does not exist, or names no image.
    """
    named = expand(inputs, stdin)
    found = keyed(named.paths, root_of(inputs, named.paths))
    keys, paths = list(found), list(found.values())
    twice = len(named.paths) - len(paths)
    again = [f"{twice} photographs are named again: each has one row"] if twice else []

    def look(index: int, data: Mapping[str, Any]) -> Seen:
        row, path = {"key": keys[index]}, os.fspath(paths[index])
        try:
            picture = hashlib.sha256(read_bytes(path, MOST_IMAGE)).hexdigest()
        except (OSError, ValueError):  # the next call says why
            picture = ""
        seen = preprocess_file(path, data, 0, gate=True)
        if isinstance(seen, ImageError):
            return Seen(row, picture, error=_reason(seen, path))
        square, _, refused = seen
        return Seen(row, picture, square, refused)

    return Photographs(
        said=f"{len(paths):,} photographs of {_kind(inputs)}",
        about={"dataset": None},
        digest=_digest([(key, *_state(path)) for key, path in found.items()]),
        count=len(paths),
        look=look,
        notes=(*named.notes, *again),
    )


def _kind(inputs: Sequence[str]) -> str:
    if len(inputs) > 1:
        return f"{len(inputs)} inputs"
    only = inputs[0]
    if only == "-":
        return "standard input"
    if os.path.isdir(only):
        return f"the folder {only}"
    return f"the {'list' if Path(only).suffix.lower() in LISTS else 'file'} {only}"


def root_of(inputs: Sequence[str], paths: Iterable[str | os.PathLike[str]]) -> str:
    """Return the folder that keys are relative to.

    It is the folder that is named, or the folder of the list; else the deepest folder that holds
    all photographs.
    """
    if len(inputs) == 1 and inputs[0] != "-":
        only = Path(inputs[0])
        if only.is_dir():
            return os.fspath(only)
        if only.suffix.lower() in LISTS:
            return os.fspath(only.parent)
    return os.path.commonpath([os.path.dirname(os.path.abspath(path)) for path in paths])


def keyed(paths: Iterable[Path], root: str) -> dict[str, Path]:
    """Return key -> photograph, in the order of the paths; a path that comes again is left out.

    A key is the path relative to `root`, with "/"; bytes that are not UTF-8 are escaped.

    Raises:
        ValueError: one line: two files have the same key, as only escaped bytes can make them.
    """
    found: dict[str, Path] = {}
    for path in paths:
        relative = os.path.relpath(path, root).replace(os.sep, "/")
        key = relative.encode("utf-8", "backslashreplace").decode()
        first = found.setdefault(key, path)
        if os.path.abspath(first) != os.path.abspath(path):
            raise ValueError(f"two files have the name {key}, once written in UTF-8: rename one")
    return found


def _state(path: Path) -> tuple[int, int]:
    """Return size and time of a file; -1 for a file that cannot be reached."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):
        return -1, -1
    return status.st_size, status.st_mtime_ns


def _reason(error: ImageError, name: str) -> str:
    return str(error).removeprefix(f"{name}: ")


def _digest(content: Any) -> str:
    return hashlib.sha256(json.dumps(content).encode()).hexdigest()
