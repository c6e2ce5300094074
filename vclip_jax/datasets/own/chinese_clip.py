"""A folder with Chinese-CLIP's files, or with the LMDB databases that are made of them.

    DIR/train_imgs.tsv   DIR/train_texts.jsonl        DIR/lmdb/train/imgs/   DIR/lmdb/train/pairs/

A record is a pair of an image and a text: an image with several texts gives several records, all in
one split. Where both are there, the files are read and the database is noted.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from vclip_jax.datasets.formats import blobs, chinese_clip, chinese_clip_lmdb
from vclip_jax.datasets.formats.chinese_clip import IMAGES, KEYS, TEXTS, Fault, Image, Text
from vclip_jax.datasets.own.columns import Wanted
from vclip_jax.datasets.own.folders import Folder
from vclip_jax.datasets.own.found import Found
from vclip_jax.datasets.own.lookup import check_tests, relative, split_of, split_of_path
from vclip_jax.files.errors import few, one_line

_DERIVED: Final = (KEYS, ".tr.jsonl", "_feat.jsonl", "_predictions.jsonl")
"""Ends of names of files that Chinese-CLIP, or an export, adds and nobody reads."""
_SAME_ID: Final = "repeated image id"


@dataclass(frozen=True)
class Split:
    """The two files of a split."""

    name: str
    """The name of the split as the files give it, after the folders above: "train"."""
    images: Path
    texts: Path

    @property
    def split(self) -> str:
        """The split in the name, or ""."""
        return split_of(self.name.rpartition("/")[2]) or split_of_path(self.name)

    @property
    def title(self) -> str:
        """The name for notes and messages: of the file of images, or of the database."""
        return f"LMDB {self.name}" if self.is_lmdb else self.images.name

    @property
    def is_lmdb(self) -> bool:
        """True if the files are databases."""
        return self.images.name == chinese_clip_lmdb.DATA


def splits_of_file(path: Path) -> list[Split]:
    """Return the split of a file that is the source itself; none if it is not Chinese-CLIP's.

    Raises:
        ValueError: one line: the other file of the split is missing.
    """
    return _of_files([path], path.parent)


def splits_in(folder: Folder) -> tuple[list[Split], list[str]]:
    """Take the files of splits out of the content of a folder.

    Returns:
        The splits, and notes on files that are not read. Other tables and databases stay in
        `folder`.

    Raises:
        ValueError: one line: one of the two files of a split is missing.
    """
    splits = _of_files(folder.tables, folder.root)
    known = {split.name for split in splits}
    databases = _of_databases(folder.databases, folder.root)
    twice = [split for split in databases if split.name in known]
    splits += [split for split in databases if split.name not in known]
    taken = {path for split in [*splits, *databases] for path in (split.images, split.texts)}
    folder.databases = [path for path in folder.databases if path not in taken]
    rest = [path for path in folder.tables if path not in taken]
    derived = [path for path in rest if splits and path.name.endswith(_DERIVED)]
    folder.tables = [path for path in rest if path not in derived]
    notes = []
    if twice:
        named = few(relative(split.images.parents[1], folder.root) for split in twice)
        notes.append(f"LMDB databases of splits that are read from .tsv and .jsonl: {named}.")
    if derived:
        notes.append(f"Files that are not read: {few(path.name for path in derived)}.")
    return splits, notes


def _of_files(paths: Sequence[Path], root: Path) -> list[Split]:
    splits: dict[str, Split] = {}
    for path in paths:
        stem = path.name.removesuffix(IMAGES).removesuffix(TEXTS)
        if stem == path.name or not _is_of_a_split(path):
            continue
        split = Split(
            _name(path.parent / stem, root),
            path.with_name(f"{stem}{IMAGES}"),
            path.with_name(f"{stem}{TEXTS}"),
        )
        for file, what in ((split.images, "images"), (split.texts, "texts")):
            if not file.is_file():
                raise ValueError(
                    f"{path}: the file of its {what}, {file.name}, is missing: put it beside it"
                )
        splits[split.name] = split
    return list(splits.values())


def _is_of_a_split(path: Path) -> bool:
    """Return whether a file of such a name has such content; an empty split's files have none."""
    if not path.stat().st_size:
        return True
    holds = chinese_clip.holds_images if path.name.endswith(IMAGES) else chinese_clip.holds_texts
    return holds(path)


def _of_databases(paths: Sequence[Path], root: Path) -> list[Split]:
    homes = dict.fromkeys(path.parents[1] for path in paths if path.parent.name == "imgs")
    splits = [
        Split(
            _name(home, root),
            home / "imgs" / chinese_clip_lmdb.DATA,
            home / "pairs" / chinese_clip_lmdb.DATA,
        )
        for home in homes
    ]
    return [split for split in splits if split.texts in paths]


def _name(path: Path, root: Path) -> str:
    """Return the path of a split from the dataset's folder, without the folder `lmdb`."""
    parts = [part for part in relative(path, root).split("/") if part not in ("", "lmdb")]
    return "/".join(parts) or path.resolve().name


def from_splits(
    splits: Sequence[Split], root: Path, wanted: Wanted
) -> tuple[list[Found], list[str]]:
    """Read the pairs of all splits.

    Returns:
        The pairs, and what is in none: images without a text, texts without an image, and faults.
        Notes on what was read.

    Raises:
        ValueError: one line: a column was named, a database cannot be read, or there is a split
            "eval" besides "test".
    """
    if wanted.named:
        raise ValueError(
            f"{root}: Chinese-CLIP's files have no columns, so no column {wanted.named[0]!r}"
        )
    check_tests([split.name for split in splits], root)
    found: list[Found] = []
    notes: list[str] = []
    for split in splits:
        more, said = _from_split(split)
        found += more
        notes += said
    return found, notes


def _from_split(split: Split) -> tuple[list[Found], list[str]]:
    images, texts, notes = _contents(split)
    known, repeated, found = _by_id(split, images)
    pairs: dict[str, list[Text]] = {}
    silent: list[Found] = []
    for one in texts:
        if isinstance(one, Fault):
            found.append(_reject(split, one))
            continue
        for image_id in one.images:
            pairs.setdefault(image_id, []).append(one)
        if not one.images:
            detail = f"{one.where}: the text {one.id} names no image"
            silent.append(_reject(split, Fault(one.where, "text without image", detail)))
    unread = any(isinstance(one, Fault) for one in texts)
    if known and not pairs and not unread and split.split != "train":
        notes.append(
            f"{split.title}: {len(known)} images and {len(silent)} texts are left out, because no "
            "text names an image: are the answers of this test split in another file?"
        )
        return found, notes
    for image in known.values():
        found += _pairs_of(split, image, pairs.get(image.id, ()))
    for image_id, several_texts in pairs.items():
        reason = _SAME_ID if image_id in repeated else "missing image"
        for one in several_texts if image_id not in known else ():
            detail = f"{one.where}: the text {one.id} names the image {image_id}"
            found.append(_reject(split, Fault(one.where, reason, detail)))
    notes.append(
        f"{split.title}: {len(known)} images, and "
        f"{sum(len(ones) for image_id, ones in pairs.items() if image_id in known)} pairs of an "
        "image and a text."
    )
    if shared := sum(len({one.text.strip() for one in pairs.get(i, ())}) > 1 for i in known):
        notes.append(f"{split.title}: {shared} images have several texts, each in a record.")
    return found + silent, notes


def _contents(
    split: Split,
) -> tuple[Sequence[Image | Fault], Sequence[Text | Fault], list[str]]:
    """Read both files of a split, and return notes on them.

    Raises:
        ValueError: one line: a file cannot be read.
    """
    if split.is_lmdb:
        images, one = chinese_clip_lmdb.images(split.images)
        texts, other = chinese_clip_lmdb.texts(split.texts)
        return images, texts, [note for note in (one, other) if note]
    try:
        return list(chinese_clip.images(split.images)), list(chinese_clip.texts(split.texts)), []
    except OSError as error:
        raise ValueError(one_line(error)) from error


def _by_id(
    split: Split, images: Sequence[Image | Fault]
) -> tuple[dict[str, Image], set[str], list[Found]]:
    """Return the images by id, the ids of several different images, and rejects."""
    known: dict[str, Image] = {}
    several: dict[str, list[Image]] = {}
    rejects: list[Found] = []
    for one in images:
        if isinstance(one, Fault):
            rejects.append(_reject(split, one))
        elif known.setdefault(one.id, one) is not one:
            several.setdefault(one.id, [known[one.id]]).append(one)
    different = set()
    for image_id, ones in several.items():
        # A text means one of them: if they differ, nobody knows which.
        alike = all(_are_equal(ones[0], one) for one in ones[1:])
        reason = "duplicate row" if alike else _SAME_ID
        for one in ones[alike:]:
            rejects.append(_reject(split, Fault(one.where, reason, f"{one.where}: {image_id}")))
        if not alike:
            different.add(image_id)
            del known[image_id]
    return known, different, rejects


def _are_equal(one: Image, other: Image) -> bool:
    try:
        return blobs.read(one.blob) == blobs.read(other.blob)
    except (OSError, ValueError):
        return False


def _pairs_of(split: Split, image: Image, texts: Sequence[Text]) -> Iterator[Found]:
    """Yield the pairs of an image, or a reject if it has none.

    Pairs of one caption get the same key: all but the first are rejects later.
    """
    key = f"{split.name}/{image.id}"
    if not texts:
        yield _reject(split, Fault(key, "image without text", image.where))
    captions = [one.text.strip() for one in texts]
    ids = {caption: one.id for caption, one in reversed(list(zip(captions, texts, strict=True)))}
    for caption, one in zip(captions, texts, strict=True):
        yield Found(
            key=f"{key}/{ids[caption]}" if len(ids) > 1 else key,
            image=image.blob,
            caption=caption,
            split=split.split,
            detail=f"{image.where}; {one.where}",
            source=split.title,
            group=key if len(ids) > 1 else "",
        )


def _reject(split: Split, fault: Fault) -> Found:
    return Found(
        fault.where, reason=fault.reason, detail=fault.detail, split=split.split, source=split.title
    )
