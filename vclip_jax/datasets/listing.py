"""The content of a dataset as downloaded: one item a photograph, before any image is read.

Every reader of a dataset (`messidor.scan`, `fives.scan`, ...) returns a `Listing`; `ingest.build`
turns it into ArrayRecord. Nothing is lost between the two: an entry that cannot be an item is a
reject.
"""

import hashlib
import hmac
import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Final

_SUFFIXES = ".jpg .jpeg .jpe .jfif .jif .mpo .png .tif .tiff .bmp .dib .webp .ppm .pgm .pnm"
IMAGE_SUFFIXES: Final = tuple(_SUFFIXES.split())

PARQUET: Final = (".parquet", ".pq")

Value = int | float | str

_DEPTH: Final = 2
"""Levels below the given folder at which a dataset may lie."""
PATIENT: Final = "patient"
"""The column that names a photograph's patient, as text or as a number, in every dataset."""
FINDINGS: Final = "findings"
"""The column `findings/NAME` holds a disease or sign: 1 present, 0 absent, -1 not rated."""
_HARMLESS: Final = frozenset({"eye", "sex", "camera"})
"""Columns of text that name nobody, and neither place nor date."""
_FEWEST_ALIKE: Final = 5
"""People who share a text that anonymous data may keep: a rarer one may be a name."""
_OF_PEOPLE: Final = re.compile(r"patient|subject|person|(^|_)id($|_)")
"""Names of columns that number people rather than measure them."""


@dataclass(frozen=True, slots=True)
class Blob:
    """The place of an encoded image's bytes; `blobs.read` reads them."""

    path: str
    """A file, or a container: .zip, .tar, .tsv, .mdb or .parquet."""
    member: str = ""
    """The place in a container: the name in a .zip, "OFFSET:SIZE" in a .tar or (of base64) in a
    .tsv, the key in an .mdb, "COLUMN:ROW" in a .parquet (rows counted from 0).
    """

    def __str__(self) -> str:
        return f"{self.path}::{self.member}" if self.member else self.path


@dataclass(frozen=True, slots=True)
class Item:
    """One photograph and the facts about it."""

    key: str
    """Unique within the dataset, and independent of the dataset's storage and order."""
    split: str
    image: Blob
    caption: str
    label: int
    """The class for zero-shot evaluation, -1 if there is none."""
    values: tuple[Value, ...] = ()
    """The values of the listing's `columns`, in their order and of their types."""


@dataclass(frozen=True, slots=True)
class Reject:
    """An entry that was listed and is left out."""

    key: str
    reason: str
    """A few words, the same for all of a kind: "missing image", "duplicate row"."""
    detail: str = ""
    """One line on the place and the fault."""


@dataclass
class Listing:
    """A dataset, ready to be built. `items` and `rejects` together are all listed entries."""

    name: str
    classes: tuple[str, ...]
    """Names of the labels."""
    items: Sequence[Item]
    rejects: list[Reject] = field(default_factory=list)
    columns: Mapping[str, type] = field(default_factory=dict)
    """Further features: name -> int, float or str."""
    variant: str = ""
    """A name for the effect of the options, if any: part of the built dataset's name."""
    notes: list[str] = field(default_factory=list)
    """Sentences for the data card."""
    guesses: list[str] = field(default_factory=list)
    """Sentences on guesses for the data card; they may hold names of files."""
    warnings: list[str] = field(default_factory=list)
    """Sentences on contradictions, without names of files or persons: anonymous data keep them."""
    description: str = ""
    homepage: str = ""
    licence: str = ""
    ordered: bool = False
    """True if the classes are grades, in their order: the order that kappa weighs."""
    no_photographs: tuple[str, ...] = ()
    """Patterns of images below the folder that are no photographs, such as masks; see
    `own.folders.left_out`."""

    def __post_init__(self) -> None:
        """Check the listing; raises ValueError for a fault of its reader."""
        repeated = [key for key, n in Counter(item.key for item in self.items).items() if n > 1]
        if repeated:
            raise ValueError(f"{self.name}: {len(repeated)} keys repeat, such as {repeated[0]!r}")
        for item in self.items:
            if not -1 <= item.label < len(self.classes):
                raise ValueError(f"{self.name}: {item.key} has the label {item.label}")
            if len(item.values) != len(self.columns):
                raise ValueError(f"{self.name}: {item.key} has {len(item.values)} values")


def hash_of(key: str, purpose: str) -> int:
    """Return a 64-bit number that depends only on both strings: SHA-256's first 8 bytes."""
    return int.from_bytes(hashlib.sha256(f"{purpose}:{key}".encode()).digest()[:8], "big")


def split_by_hash(key: str) -> str:
    """Return train, validation or test, 8:1:1, by the key alone: stable if records are added."""
    return {8: "validation", 9: "test"}.get(hash_of(key, "split") % 10, "train")


def choose(words: Sequence[str], key: str, purpose: str) -> str:
    """Return one of several phrasings, by the key alone."""
    return words[hash_of(key, purpose) % len(words)]


def anonymous(listing: Listing, secret: bytes) -> Listing:
    """Return the listing without names: with other keys, in their own order, and no text with a
    name.

    A key, and the name of a patient, becomes a hash that only the holder of the secret can compute.
    Once the secret is deleted, a list of the names leads to no record, and no two builds give
    images the same key. Columns of other text and of people's numbers, details of rejects and notes
    are left out; texts of eye, sex and camera stay where at least five people have the same (five
    photographs if no column names the patients). Splits, labels and findings stay as the names made
    them.

    Args:
        listing: a listing with names.
        secret: random bytes.
    """

    def digest(text: str) -> str:
        return hmac.digest(secret, text.encode("utf-8", "surrogatepass"), "sha256")[:8].hex()

    def hidden(key: str) -> str:
        return f"{listing.name}-{digest(key)}"

    people: dict[tuple[str, Value], set[Value]] = {}
    for item in listing.items:
        cells = dict(zip(listing.columns, item.values, strict=True))
        person = cells.get(PATIENT, "") or item.key
        for name in cells.keys() & _HARMLESS:
            people.setdefault((name, cells[name]), set()).add(person)

    def shown(values: tuple[Value, ...]) -> tuple[Value, ...]:
        cells = dict(zip(listing.columns, values, strict=True))
        if cells.get(PATIENT, "") != "":
            # The name of a patient may also be a key, whose hash it must not have.
            cells[PATIENT] = f"patient-{digest(f'{PATIENT}:{cells[PATIENT]}')}"
        texts = cells.keys() & _HARMLESS
        rare = {name for name in texts if len(people[name, cells[name]]) < _FEWEST_ALIKE}
        return tuple("" if name in rare else cells[name] for name in kept)

    kept = {
        name: str if name == PATIENT else kind
        for name, kind in listing.columns.items()
        if name in (PATIENT, *_HARMLESS)
        or name.startswith(f"{FINDINGS}/")
        or (kind is not str and not _OF_PEOPLE.search(name.lower()))
    }
    items = [
        replace(item, key=hidden(item.key), values=shown(item.values)) for item in listing.items
    ]
    rejects = [Reject(hidden(reject.key), reject.reason) for reject in listing.rejects]
    return replace(
        listing,
        items=sorted(items, key=lambda item: item.key),
        rejects=sorted(rejects, key=lambda reject: reject.key),
        columns=kept,
        notes=["Notes about single photographs are left out, as all names."]
        if listing.notes
        else [],
        guesses=[],
    )


def find_below(root: str | os.PathLike[str], names: Iterable[str], what: str) -> Path:
    """Return the first of `names` (relative paths) that exists in `root` or in a folder below it.

    Look two folders down: Kaggle's archives have each folder in one of the same name.

    Raises:
        ValueError: one line: none exists.
    """
    root, names = Path(root), list(names)
    folders = [root]
    for _ in range(_DEPTH + 1):
        for folder in folders:
            for name in names:
                if (folder / name).exists():
                    return folder / name
        folders = sorted(inner for folder in folders for inner in _folders_in(folder))
    raise ValueError(
        f"{root}: not {what} as distributed, it lacks {' or '.join(names)} (`build generic` reads "
        "tables and folders of classes in any layout)"
    )


def _folders_in(folder: Path) -> list[Path]:
    try:
        with os.scandir(folder) as entries:
            return [Path(entry.path) for entry in entries if entry.is_dir()]
    except OSError:
        return []
