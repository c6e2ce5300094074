"""WebDataset shards: .tar files in which members of the same name, except for the suffix, are a
sample.

    train-000000.tar: 00000000.jpg 00000000.txt 00000000.json 00000000.cls 00000001.jpg ...

https://github.com/webdataset/webdataset. The sample's name is a member's path up to the first dot
of its last part; `.txt` is the caption, `.cls` the class, `.json` may hold caption, class, split,
patient, facts, and `findings` (name: 1, 0 or -1). Without a split in the .json, it is that of the
shard, or else that of the folders in the member's path.
"""

import io
import json
import os
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from vclip_jax.datasets.formats.tables import text_of
from vclip_jax.datasets.listing import FINDINGS, IMAGE_SUFFIXES, PATIENT, Blob
from vclip_jax.datasets.own.folders import TABLE_SUFFIXES, is_hidden
from vclip_jax.files.errors import one_line
from vclip_jax.files.foreign import parse_json
from vclip_jax.files.text import decode_text
from vclip_jax.files.writing import replacing

_CAPTIONS: Final = ("txt", "text", "caption")
_TEXTS: Final = (*_CAPTIONS, "cls", "json")
_MOST_TEXT: Final = 1 << 20
"""Bytes of a text; a larger .json is not a caption."""
_MAGIC: Final = (
    (b"\xff\xd8\xff", "jpg"),
    (b"\x89PNG", "png"),
    (b"RIFF", "webp"),
    (b"II*\0", "tif"),
    (b"MM\0*", "tif"),
    (b"BM", "bmp"),
)


@dataclass
class Sample:
    """The members of one name."""

    name: str
    shard: Path
    images: dict[str, Blob] = field(default_factory=dict)
    """Suffix -> image."""
    texts: dict[str, str] = field(default_factory=dict)
    """The content of .txt, .cls and the like, by suffix."""
    extra: dict[str, Any] = field(default_factory=dict)
    """The whole content of the .json."""
    broken: str = ""
    """The fault of the sample's text, if any."""
    unread: list[str] = field(default_factory=list)
    """The suffixes of members that are neither images nor texts."""

    @property
    def key(self) -> str:
        """The key of the record that was written, if a .json holds it."""
        return text_of(self.extra.get("key"))

    @property
    def captions(self) -> list[str]:
        """The different captions: that of the .txt first, then that of the .json."""
        own = [self.texts.get(suffix, "") for suffix in _CAPTIONS]
        noted = text_of(self.extra.get("caption") or self.extra.get("text"))
        return list(dict.fromkeys(filter(None, [*own, noted])))

    @property
    def labels(self) -> list[str]:
        """The different labels: that of the .json first, then that of the .cls.

        A name in one and a number in the other may be of one class.
        """
        both = [text_of(self.extra.get("label")), self.texts.get("cls", "")]
        return list(dict.fromkeys(filter(None, both)))

    @property
    def chosen(self) -> list[str]:
        """The suffixes that may be the photograph: those without a dot (`jpg`, not `seg.png`), else
        all.

        The photograph is known if there is just one.
        """
        return [suffix for suffix in self.images if "." not in suffix] or list(self.images)

    @property
    def image(self) -> Blob | None:
        """The photograph, if it is known."""
        return self.images[self.chosen[0]] if len(self.chosen) == 1 else None


def write(
    records: Iterable[Mapping[str, Any]],
    folder: str | os.PathLike[str],
    shard_size: int = 1000,
    prefix: str = "train",
    classes: Sequence[str] = (),
) -> list[Path]:
    """Write records as shards; the same records give the same bytes anywhere.

    Args:
        records: mappings with `image` (encoded), `caption`, `key` and `label`, and perhaps
            `patient`, `facts` and `findings`, such as a `RecordSource`.
        folder: the folder of PREFIX-000000.tar and so on; files of these names are replaced.
        shard_size: records in a shard.
        prefix: start of the files' names, usually the split.
        classes: names of the labels, written next to their numbers.

    Returns:
        The shards' paths.

    Raises:
        ValueError: the shard size is below one.
        OSError: a file cannot be written.
    """
    if shard_size < 1:
        raise ValueError(f"a shard holds at least one record, got {shard_size}")
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    shards: list[Path] = []
    part: list[Mapping[str, Any]] = []
    first = 0
    for record in records:
        part.append(record)
        if len(part) == shard_size:
            shards.append(_write_shard(part, first, folder, prefix, len(shards), classes))
            first, part = first + len(part), []
    if part:
        shards.append(_write_shard(part, first, folder, prefix, len(shards), classes))
    return shards


def _write_shard(
    records: Sequence[Mapping[str, Any]],
    first: int,
    folder: Path,
    prefix: str,
    index: int,
    classes: Sequence[str],
) -> Path:
    path = folder / f"{prefix}-{index:06d}.tar"
    with (
        replacing(path) as temporary,
        tarfile.open(temporary, "w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for number, record in enumerate(records, start=first):
            # Keys may hold dots and slashes, which a sample's name may not: the .json holds them.
            note: dict[str, Any] = {"key": record["key"]}
            note |= {name: value for name, value in _facts(record).items() if value != ""}
            if findings := record.get(FINDINGS):
                note[FINDINGS] = {name: int(flag) for name, flag in findings.items()}
            members = {
                _suffix(record["image"]): record["image"],
                "txt": record["caption"].encode(),
            }
            label = int(record["label"])
            if label >= 0:
                members["cls"] = str(label).encode()
                if classes:
                    note["label"] = classes[label]
            members["json"] = json.dumps(note, ensure_ascii=False).encode()
            for suffix, data in members.items():
                # A new TarInfo has no time and no owner.
                info = tarfile.TarInfo(f"{number:08d}.{suffix}")
                info.size = len(data)
                tar.addfile(info, io.BytesIO(data))
    return path


def _facts(record: Mapping[str, Any]) -> dict[str, Any]:
    return {PATIENT: record.get(PATIENT, ""), **record.get("facts", {})}


def _suffix(image: bytes) -> str:
    return next((suffix for magic, suffix in _MAGIC if image.startswith(magic)), "jpg")


def scan_tar(path: Path) -> tuple[list[Sample], list[str]]:
    """List the samples of one shard, in order, and its hidden images, without reading images.

    Raises:
        ValueError: one line: the shard is damaged, or is an archive of a folder with a table in it.
    """
    current: Sample | None = None
    samples: list[Sample] = []
    hidden: list[str] = []
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                if not member.isfile():
                    continue
                if any(map(is_hidden, member.name.split("/"))):
                    hidden += [member.name] if _is_image(member.name) else []
                    continue
                parent, _, last = member.name.rpartition("/")
                stem, _, suffix = last.partition(".")
                name = f"{parent}/{stem}" if parent else stem
                if f".{suffix.lower()}" in TABLE_SUFFIXES:
                    raise ValueError(
                        f"{path}: it holds the table {member.name}, so it is not a WebDataset "
                        "shard: unpack it and give the folder"
                    )
                if current is None or current.name != name:
                    # The same name later is another sample: a sample's members are adjacent.
                    current = Sample(name, path)
                    samples.append(current)
                _take(current, tar, member, suffix.lower())
    except (tarfile.TarError, OSError, EOFError) as error:
        raise ValueError(f"{path}: not a readable .tar ({one_line(error)})") from error
    return samples, hidden


def _is_image(name: str) -> bool:
    return f".{name.lower().rpartition('.')[2]}" in IMAGE_SUFFIXES


def _take(sample: Sample, tar: tarfile.TarFile, member: tarfile.TarInfo, suffix: str) -> None:
    """Add one member to its sample."""
    if _is_image(suffix):
        while suffix in sample.images:  # twice in one sample: the photograph is not known
            suffix = f"{suffix} again"
        sample.images[suffix] = Blob(str(sample.shard), f"{member.offset_data}:{member.size}")
        return
    if suffix not in _TEXTS:
        sample.unread.append(suffix)
        return
    if member.size > _MOST_TEXT:
        sample.broken = f"{member.name}: {member.size:,} bytes of text"
        return
    file = tar.extractfile(member)
    assert file is not None  # a regular file
    try:
        text = decode_text(file.read()).strip()
        if suffix == "json":
            sample.extra = _object(text)
        else:
            sample.texts[suffix] = text
    except ValueError as error:
        sample.broken = f"{member.name}: {one_line(error)}"


def contradicting(samples: Iterable[Sample]) -> list[Sample]:
    """Return the samples whose .json and .cls give different numbers, or different names, as label.

    None contradicts if every number of the .cls stands for one label of the .json throughout, as
    where classes are called "1", "2" and "3": the .json then holds their names.
    """
    labelled = [sample for sample in samples if sample.labels]
    pairs = {(text_of(one.extra.get("label")), one.texts.get("cls", "")) for one in labelled}
    names, numbers = {name for name, _ in pairs}, {number for _, number in pairs}
    if "" not in names | numbers and len(pairs) == len(names) == len(numbers):
        return []
    return [
        sample
        for sample in labelled
        if len(sample.labels) > 1 and len({text.isdecimal() for text in sample.labels}) == 1
    ]


def _object(text: str) -> dict[str, Any]:
    value = parse_json(text, "the JSON", constants=True)
    if not isinstance(value, dict):
        raise ValueError("the JSON is not an object")
    return value
