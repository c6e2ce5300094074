"""What a dataset as downloaded holds: one item a photograph, before any image is read.

Every reader of a dataset (`messidor.scan`, `fives.scan`, ...) returns a `Listing`; `ingest.build`
turns it into ArrayRecord. Nothing is lost between the two: what cannot be an item is a reject.
"""

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

_SUFFIXES = ".jpg .jpeg .jpe .jfif .jif .mpo .png .tif .tiff .bmp .dib .webp .ppm .pgm .pnm"
IMAGE_SUFFIXES: Final = tuple(_SUFFIXES.split())

Value = int | float | str


@dataclass(frozen=True, slots=True)
class Blob:
    """Where the bytes of an encoded image lie; `blobs.read` gets them."""

    path: str
    """A file, or a container: .zip, .tar or .parquet."""
    member: str = ""
    """Within a container: the name in a .zip, "OFFSET:SIZE" in a .tar, "COLUMN:ROW" in a .parquet
    (rows counted from 0)."""

    def __str__(self) -> str:
        return f"{self.path}::{self.member}" if self.member else self.path


@dataclass(frozen=True, slots=True)
class Item:
    """One photograph with what is known of it."""

    key: str
    """Unique within the dataset, and the same however the dataset is stored or ordered."""
    split: str
    image: Blob
    caption: str
    label: int
    """The class for zero-shot evaluation, -1 where there is none."""
    values: tuple[Value, ...] = ()
    """Of the listing's `columns`, in their order and of their types."""


@dataclass(frozen=True, slots=True)
class Reject:
    """What was listed and is left out."""

    key: str
    reason: str
    """A few words that are the same for all of a kind: "missing image", "duplicate row"."""
    detail: str = ""
    """Where, and what: one line."""


@dataclass
class Listing:
    """A dataset, ready to be built. `items` and `rejects` together are all that is listed."""

    name: str
    classes: tuple[str, ...]
    """Names of the labels."""
    items: Sequence[Item]
    rejects: list[Reject] = field(default_factory=list)
    columns: Mapping[str, type] = field(default_factory=dict)
    """Further features, name -> int, float or str."""
    variant: str = ""
    """What options made of it, if they changed anything: part of the built dataset's name."""
    notes: list[str] = field(default_factory=list)
    """For the data card: one sentence each."""
    guesses: list[str] = field(default_factory=list)
    """Likewise, of what was guessed; they may hold names of files."""
    description: str = ""
    homepage: str = ""
    licence: str = ""
    ordered: bool = False
    """Whether the classes are grades, in their order: that of what kappa weighs."""

    def __post_init__(self) -> None:
        """Raises ValueError for what a reader must not produce."""
        repeated = [key for key, n in Counter(item.key for item in self.items).items() if n > 1]
        if repeated:
            raise ValueError(f"{self.name}: {len(repeated)} keys repeat, such as {repeated[0]!r}")
        for item in self.items:
            if not -1 <= item.label < len(self.classes):
                raise ValueError(f"{self.name}: {item.key} has the label {item.label}")
            if len(item.values) != len(self.columns):
                raise ValueError(f"{self.name}: {item.key} has {len(item.values)} values")


def hash_of(key: str, purpose: str) -> int:
    """A 64-bit number that depends on both strings alone: SHA-256's first 8 bytes."""
    return int.from_bytes(hashlib.sha256(f"{purpose}:{key}".encode()).digest()[:8], "big")


def split_by_hash(key: str) -> str:
    """train, validation or test, 8:1:1, by the key alone: stable under re-ordering and growth."""
    return {8: "validation", 9: "test"}.get(hash_of(key, "split") % 10, "train")


def choose(words: Sequence[str], key: str, purpose: str) -> str:
    """One of several phrasings, by the key alone."""
    return words[hash_of(key, purpose) % len(words)]


def anonymous(listing: Listing) -> Listing:
    """The listing with numbers for keys, without columns of text and guesses, and rejects without
    details.

    The numbers follow a hash of the keys, so that they do not tell the order of the names. Splits
    stay as the names made them.
    """
    keys = sorted(
        [item.key for item in listing.items] + [reject.key for reject in listing.rejects],
        key=lambda key: (hash_of(key, "anonymous"), key),
    )
    number = {key: f"{listing.name}-{index:07d}" for index, key in enumerate(keys)}
    kept = [i for i, kind in enumerate(listing.columns.values()) if kind is not str]
    names = list(listing.columns)
    return replace(
        listing,
        items=[
            replace(item, key=number[item.key], values=tuple(item.values[i] for i in kept))
            for item in listing.items
        ],
        rejects=[Reject(number[reject.key], reject.reason) for reject in listing.rejects],
        columns={names[i]: listing.columns[names[i]] for i in kept},
        guesses=[],
    )


def image_files(folder: Path) -> dict[str, Path]:
    """The images of a folder (not of its subfolders) by lower-case stem; Thumbs.db and others are
    passed over.

    Raises:
        ValueError: two images differ by their suffix or by case alone.
    """
    files: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        if path.suffix.lower() in IMAGE_SUFFIXES and not path.name.startswith("."):
            if path.stem.lower() in files:
                raise ValueError(f"{folder} has {files[path.stem.lower()].name} and {path.name}")
            files[path.stem.lower()] = path
    return files


def find_below(root: str | os.PathLike[str], names: Iterable[str], what: str) -> Path:
    """The first of `names` (relative paths) that exists in `root` or in one folder below it.

    Raises:
        ValueError: one line: none is there.
    """
    root, names = Path(root), list(names)
    for parent in (root, *sorted(path for path in root.glob("*") if path.is_dir())):
        for name in names:
            if (parent / name).exists():
                return parent / name
    raise ValueError(f"{root}: not {what} as distributed, it lacks {' or '.join(names)}")
