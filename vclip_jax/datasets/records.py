"""Random access to the records of a built dataset, without TensorFlow.

A dataset is in data_dir/NAME/VERSION or data_dir/NAME/CONFIG/VERSION, in TFDS's layout. Only the
features of `Record` are parsed, which takes a third of TFDS's time for them and none for the other
columns.
"""

import glob
import hashlib
import os
import re
import uuid
from bisect import bisect_right
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate, islice
from pathlib import Path
from types import MappingProxyType
from typing import Any, SupportsIndex

from vclip_jax.data.record import FACTS, Record
from vclip_jax.datasets.built import DatasetError, open_builder
from vclip_jax.datasets.catalog import known_columns
from vclip_jax.datasets.listing import FINDINGS
from vclip_jax.files import open_files
from vclip_jax.files.errors import few, one_line
from vclip_jax.files.foreign import read_json

FEATURES = ("image", "caption", "key", "label")
SUMS = "records.sha256"
"""The file with the SHA-256 of every file of records, in `sha256sum`'s format."""
_READ_WHOLE = 2 << 30
"""Bytes of a split up to which a digest reads all of it: two seconds."""
_SAMPLE = 2**16
"""Bytes at either end of a file that identify it if `SUMS` lacks it."""


@dataclass(frozen=True)
class Part:
    """Successive records of one file that belong to a split."""

    path: str
    skip: int
    """Records of the file before this part."""
    take: int
    before: int
    """Records of the split in earlier files."""


class RecordSource(Sequence[Record]):
    """The records of one split in stored order; picklable, as Grain's workers require.

    `name` and `split` are those that were opened, `class_names` the names of the labels (empty if
    they are not known).

    Examples:
        >>> from vclip_jax.datasets import open_source
        >>> source = open_source("synthetic", data_dir, "test")
        >>> source
        RecordSource(synthetic:test, 8 records)
        >>> record = source[0]
        >>> record["key"], source.class_names[record["label"]]
        ('messidor_like-s1-00000000', 'no diabetic retinopathy')
    """

    def __init__(
        self,
        name: str,
        split: str,
        parts: Sequence[Part],
        class_names: Sequence[str] = (),
        findings: Mapping[str, str] = MappingProxyType({}),
        facts: Mapping[str, str] = MappingProxyType({}),
    ):
        """Take the records of `parts`, one after the other; a file is opened when it is read.

        `findings` and `facts` map names to the columns that hold them.
        """
        self.name = name
        self.split = split
        self.class_names = tuple(class_names)
        self._findings, self._facts = dict(findings), dict(facts)
        self._parts = tuple(parts)
        self._ends = list(accumulate(part.take for part in parts))
        self._identity = uuid.uuid4().hex

    def __len__(self) -> int:
        return self._ends[-1] if self._ends else 0

    def __getitem__(self, index: SupportsIndex) -> Record:  # type: ignore[override]
        index = index.__index__()
        if not -len(self) <= index < len(self):
            raise IndexError(f"record {index} of {len(self)} in {self.name}:{self.split}")
        part, number = self._place(index % len(self))
        try:
            record = open_files.read_record(self._identity, part.path, part.skip + number)
            return _parse(record, self._findings, self._facts)
        except OSError as error:
            raise DatasetError(f"{self.name}:{self.split}: {error}") from error
        except Exception as error:  # ArrayRecord and protobuf raise unrelated types
            raise DatasetError(
                f"{self.name}:{self.split}: {_name(part, number)} is damaged on disk: build the "
                f"dataset again ({one_line(error, 200)})"
            ) from error

    def _place(self, index: int) -> tuple[Part, int]:
        """Return the part that holds a record, and the record's number in the part."""
        at = bisect_right(self._ends, index)
        return self._parts[at], index - (self._ends[at - 1] if at else 0)

    @property
    def finding_names(self) -> tuple[str, ...]:
        """The names of the findings of each record; empty for a dataset without findings."""
        return tuple(self._findings)

    @property
    def card(self) -> Mapping[str, Any]:
        """The content of the dataset's `card.json`; empty if it has none."""
        if not self._parts:
            return {}
        try:
            content = read_json(Path(self._parts[0].path).parent / "card.json")
        except (OSError, ValueError):
            return {}
        return content if isinstance(content, dict) else {}

    @property
    def splits(self) -> tuple[str, ...]:
        """The names of the opened splits, without slices."""
        return tuple(sorted(set(_split_names(self.split))))

    def digest(self) -> str:
        """Return SHA-256 in hexadecimal of the splits' full content, wherever the dataset is
        stored.

        Slices count as their whole splits; the result is "" if there are no records. The digest
        combines the files' SHA-256. Of a split of more than 2 GiB it takes those that `build`
        wrote, and files of an earlier version, without them, count by their sizes and ends.

        Examples:
            >>> from vclip_jax.datasets import open_source
            >>> whole = open_source("synthetic", data_dir, "test")
            >>> half = open_source("synthetic", data_dir, "test[:50%]")
            >>> len(half), half.digest() == whole.digest()
            (4, True)
        """
        if not self._parts:
            return ""
        folder = Path(self._parts[0].path).parent
        lines = (folder / SUMS).read_text().splitlines() if (folder / SUMS).is_file() else []
        sums = {line[66:]: line[:64] for line in lines}
        digest = hashlib.sha256((folder / "features.json").read_bytes())
        digest.update("\n".join(self.class_names).encode())
        for split in self.splits:
            paths = sorted(folder.glob(f"*-{glob.escape(split)}.array_record-*"))
            small = sum(path.stat().st_size for path in paths) <= _READ_WHOLE
            for path in paths:
                if path.name not in sums:
                    checksum = _sample(path)
                else:
                    checksum = _sha256(path) if small else sums[path.name]
                digest.update(f"{path.name} {path.stat().st_size} {checksum}\n".encode())
        return digest.hexdigest()

    def __iter__(self) -> Iterator[Record]:
        return (self[index] for index in range(len(self)))

    def __repr__(self) -> str:
        return f"RecordSource({self.name}:{self.split}, {len(self)} records)"


def _name(part: Part, number: int) -> str:
    """Describe a record for a message: its key if the builder noted it, its number, its file."""
    path = Path(part.path)
    split = path.name.rpartition(".array_record-")[0].rpartition("-")[2]
    key = _line(path.parent / f"keys-{split}.txt", part.before + part.skip + number)
    return f"{key + ', ' if key else ''}record {part.skip + number} of {path}"


def open_source(name: str, data_dir: str | os.PathLike[str], split: str) -> RecordSource:
    """Open a split of a built dataset.

    Args:
        name: "NAME" or "NAME/CONFIG", for example "idrid" or
            "synthetic/synfundus_like-128px-12000-s0". Without a config there must be just one.
        data_dir: the folder of built datasets.
        split: a split, a slice ("train[:10%]") or a sum ("train+holdout"), in TFDS's notation.

    Raises:
        DatasetError: the dataset is not built, the choice is ambiguous, its records are not
            ArrayRecord, or there is no such split or feature.

    Examples:
        >>> from vclip_jax.datasets import open_source
        >>> source = open_source("synthetic", data_dir, "test")
        >>> len(source), sorted(source[0])
        (8, ['caption', 'findings', 'image', 'key', 'label'])
    """
    builder = open_builder(name, data_dir)
    return source_of(builder, name, split)


def has_splits(name: str, data_dir: str | os.PathLike[str], split: str) -> bool:
    """Return whether a built dataset has the split, or all splits of a sum.

    Raises:
        DatasetError: the dataset is not built, or the choice is ambiguous.
    """
    return set(_split_names(split)) <= set(open_builder(name, data_dir).info.splits)


def source_of(builder: Any, name: str, split: str) -> RecordSource:
    """Return a `RecordSource` over a split of a TFDS builder with data."""
    import tensorflow_datasets as tfds

    splits = sorted(builder.info.splits)
    unknown = [part for part in _split_names(split) if part not in splits]
    if unknown:
        raise DatasetError(f"{name} has no split {unknown[0]!r}: it has {few(splits)}")
    missing = [feature for feature in FEATURES if feature not in builder.info.features]
    if missing:
        raise DatasetError(f"{name}: its records lack the features {', '.join(missing)}")
    if builder.info.file_format != tfds.core.FileFormat.ARRAY_RECORD:
        raise DatasetError(f"{name}: its records are not in ArrayRecord: build it again")
    try:
        parts = _parts(builder.info, split)
    except ValueError as error:
        raise DatasetError(f"{name}: cannot open the split {split!r}: {one_line(error)}") from error
    for folder in {os.path.dirname(part.path) for part in parts}:
        with os.scandir(folder) as entries:
            sizes = {entry.path: entry.stat().st_size for entry in entries}
        for part in parts:
            if part.path not in sizes:
                raise DatasetError(
                    f"{name}: {part.path} is missing: copy it here, or build it again"
                )
            # A number beyond all memory fails late, and without words.
            if part.skip + part.take > sizes[part.path]:
                raise DatasetError(
                    f"{name}: {part.path} has {sizes[part.path]:,} bytes, too few for "
                    f"{part.skip + part.take:,} records: copy it again, or build it again"
                )
    class_names = tuple(getattr(builder.info.features["label"], "names", ()))
    source = RecordSource(
        name, split, parts, class_names, *_known_columns(name, builder.info.features)
    )
    built = source.card.get("classes")
    if isinstance(built, list) and tuple(built) != class_names:
        raise DatasetError(
            f"{name}: label.labels.txt names the classes {few(class_names, 20)}, and card.json "
            f"{few(built, 20)}: a file was changed, build the dataset again"
        )
    return source


def _known_columns(name: str, features: Any) -> tuple[dict[str, str], dict[str, str]]:
    """Return the columns of findings and of facts: those that `build` names, else known ones."""
    findings, facts = (dict(known) for known in known_columns(name))
    if FINDINGS in features:
        # TFDS keeps no order of features: it differs from process to process.
        findings = {finding: f"{FINDINGS}/{finding}" for finding in sorted(features[FINDINGS])}
    facts = {fact: fact for fact in FACTS} | facts
    return (
        {
            finding: column
            for finding, column in findings.items()
            if column.partition("/")[0] in features
        },
        {fact: facts[fact] for fact in FACTS if facts[fact] in features},
    )


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _sample(path: Path) -> str:
    with path.open("rb") as file:
        head = file.read(_SAMPLE)
        file.seek(max(len(head), path.stat().st_size - _SAMPLE))
        return hashlib.sha256(head + file.read()).hexdigest()


def _parts(info: Any, split: str) -> list[Part]:
    parts = []
    for instruction in info.splits[split].file_instructions:
        name = re.match(r".*-(\w+)\.array_record-(\d+)-of-\d+$", instruction.filename)
        lengths = info.splits[name[1]].shard_lengths[: int(name[2])] if name else ()
        parts.append(Part(instruction.filename, instruction.skip, instruction.take, sum(lengths)))
    return parts


def _line(path: Path, number: int) -> str:
    """Return one line of a text file, or "" if there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return next(islice(file, number, None), "").rstrip("\n")
    except OSError:
        return ""


def _split_names(split: str) -> list[str]:
    return [re.sub(r"\[.*", "", part).strip() for part in split.split("+")]


def _parse(serialized: bytes, findings: Mapping[str, str], facts: Mapping[str, str]) -> Record:
    # Imported here, because it imports TFDS: `import vclip_jax.datasets` would take half a second.
    from tensorflow_datasets.proto import tf_example_pb2

    feature = tf_example_pb2.Example.FromString(serialized).features.feature
    record: Record = {
        "image": feature["image"].bytes_list.value[0],
        "caption": feature["caption"].bytes_list.value[0].decode(),
        "key": feature["key"].bytes_list.value[0].decode(),
        "label": feature["label"].int64_list.value[0],
    }
    if "patient" in feature:
        record["patient"] = _text(feature["patient"])
    texts = {fact: _text(feature[column]) for fact, column in facts.items()}
    if texts := {fact: text for fact, text in texts.items() if text not in ("", "-1")}:
        record["facts"] = texts
    if findings:
        # A grade is a disease that is present from 1 on.
        grades = {name: _number(feature[column]) for name, column in findings.items()}
        record["findings"] = {name: (grade > 0) - (grade < 0) for name, grade in grades.items()}
    if "fitted" in feature:
        record["fitted"] = feature["fitted"].bytes_list.value[0].decode()
    return record


def _number(feature: Any) -> int:
    return int(feature.int64_list.value[0]) if feature.int64_list.value else -1


def _text(feature: Any) -> str:
    """Return the value of a feature as text: readers store a patient as text or as a number."""
    if feature.bytes_list.value:
        return str(feature.bytes_list.value[0].decode())
    return str(feature.int64_list.value[0]) if feature.int64_list.value else ""
