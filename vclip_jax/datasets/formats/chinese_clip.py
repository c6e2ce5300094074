"""Chinese-CLIP's files of a split: an image a line, and a text a line.

    train_imgs.tsv       17<TAB>/9j/4AAQSkZJRg...
    train_texts.jsonl    {"text_id": 5, "text": "眼底未见明显异常。", "image_ids": [17]}

https://github.com/OFA-Sys/Chinese-CLIP. An image is its file's bytes in base64. A text may have
several images, and an image several texts. Texts of a test split may have no images. Files are read
line by line, because the images of a split may be larger than the memory.
"""

import base64
import csv
import hashlib
import io
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from vclip_jax.datasets.listing import Blob
from vclip_jax.files.errors import one_line
from vclip_jax.files.foreign import MOST_IMAGE, check_regular, parse_json
from vclip_jax.files.writing import replacing, write_text

IMAGES: Final = "_imgs.tsv"
"""The end of the name of a file of images."""
TEXTS: Final = "_texts.jsonl"
"""The end of the name of a file of texts."""
KEYS: Final = "_keys.csv"
"""The end of the name of the file that `write` adds: the keys of the records."""
MOST_TEXT: Final = 1 << 20
"""Bytes of a line with a text."""
MOST_BASE64: Final = -(-MOST_IMAGE // 3) * 4
"""Bytes of an image in base64."""
MOST_ID: Final = 200
"""Characters of the number or name of an image or a text."""
_MOST_LINE: Final = MOST_BASE64 + 4 * MOST_ID + 64
_PEEK: Final = 1 << 16
_BOM: Final = b"\xef\xbb\xbf"
_IMAGE_LINE: Final = re.compile(rb"\s*[^\t\r\n]{1,800}\t[A-Za-z0-9+/_-]{64}")
_NAMES: Final = {"validation": "valid"}
"""Our names of splits -> Chinese-CLIP's."""


@dataclass(frozen=True, slots=True)
class Image:
    """An image by its id."""

    id: str
    blob: Blob
    where: str


@dataclass(frozen=True, slots=True)
class Text:
    """A text with the ids of its images."""

    id: str
    text: str
    images: tuple[str, ...]
    where: str


@dataclass(frozen=True, slots=True)
class Fault:
    """A line that is neither an image nor a text."""

    where: str
    reason: str
    """A few words, the same for all of a kind."""
    detail: str


def holds_images(path: Path) -> bool:
    """Return whether a file begins with an id, a tab and base64 of some length."""
    return _IMAGE_LINE.match(_start(path).removeprefix(_BOM)) is not None


def holds_texts(path: Path) -> bool:
    """Return whether the first line of a file has the keys of Chinese-CLIP's texts."""
    first = _start(path).removeprefix(_BOM).lstrip().partition(b"\n")[0]
    return first.startswith(b"{") and b'"text_id"' in first and b'"text"' in first


def _start(path: Path) -> bytes:
    check_regular(path)
    with open(path, "rb") as file:
        return file.read(_PEEK)


def images(path: Path) -> Iterator[Image | Fault]:
    """Yield the images of a file, without decoding them.

    Raises:
        OSError: the file cannot be read.
    """
    for number, start, line in _lines(path, _MOST_LINE):
        where = f"{path.name}, line {number}"
        if line is None:
            yield Fault(where, "line too long", f"{where}: it has more than {_MOST_LINE:,} bytes")
            continue
        name, tab, rest = line.partition(b"\t")
        content = rest.strip()
        if not line.strip():
            continue
        if not tab or not content or b"\t" in content:
            yield Fault(where, "not two columns", f"{where}: expected an id, a tab and base64")
            continue
        first = start + len(name) + 1 + rest.index(content)
        try:
            one = checked_id(name.decode().strip())
        except ValueError as error:
            yield Fault(where, "not an id", f"{where}: {one_line(error)}")
        else:
            yield Image(one, Blob(str(path), f"{first}:{len(content)}"), where)


def checked_id(value: object) -> str:
    """Return the id of an image or a text, a whole number or a text, as text.

    Raises:
        ValueError: one line: the value is neither, is empty or is too long.
    """
    if isinstance(value, bool) or not isinstance(value, int | str):
        raise ValueError("an id is a whole number or a text")
    # The text of a number with more digits than Python writes is an error, too.
    text = str(value)
    if not 1 <= len(text) <= MOST_ID:
        raise ValueError(f"an id has 1 to {MOST_ID} characters")
    return text


def texts(path: Path) -> Iterator[Text | Fault]:
    """Yield the texts of a file.

    Raises:
        OSError: the file cannot be read.
    """
    for number, _, line in _lines(path, MOST_TEXT):
        where = f"{path.name}, line {number}"
        if line is None:
            yield Fault(where, "line too long", f"{where}: it has more than {MOST_TEXT:,} bytes")
        elif line.strip():
            try:
                yield _text(parse_json(line, "the line"), where)
            except ValueError as error:
                yield Fault(where, "invalid text", f"{where}: {one_line(error)}")


def _text(value: Any, where: str) -> Text:
    if not isinstance(value, dict) or not isinstance(value.get("text"), str):
        raise ValueError('expected {"text_id": 1, "text": "...", "image_ids": [1]}')
    ids = value.get("image_ids")
    if not isinstance(ids, list | None):
        raise ValueError("image_ids is not a list")
    return Text(
        checked_id(value.get("text_id")), value["text"], tuple(map(checked_id, ids or ())), where
    )


def _lines(path: Path, most: int) -> Iterator[tuple[int, int, bytes | None]]:
    """Yield number, offset and content of each line; None for a line of more than `most` bytes."""
    check_regular(path)
    with open(path, "rb") as file:
        number = offset = 0
        while line := file.readline(most + 1):
            number, start = number + 1, offset
            offset += len(line)
            if number == 1 and line.startswith(_BOM):
                start, line = start + len(_BOM), line[len(_BOM) :]
            if len(line) <= most or line.endswith(b"\n"):
                yield number, start, line
                continue
            while line and not line.endswith(b"\n"):
                line = file.readline(MOST_TEXT)
                offset += len(line)
            yield number, start, None


def name_of(split: str) -> str:
    """Return Chinese-CLIP's name of a split, for the names of its files.

    Examples:
        >>> from vclip_jax.datasets.formats.chinese_clip import name_of
        >>> name_of("train"), name_of("validation"), name_of("test[:50%]")
        ('train', 'valid', 'test-to-50')
    """
    return _NAMES.get(split) or re.sub(r"\W+", "-", split.replace(":", " to ")).strip("-")


def check_free(folder: str | os.PathLike[str], names: Iterable[str]) -> None:
    """Refuse a folder that has files of these splits: they may be somebody's originals.

    Raises:
        ValueError: one line that names the file.
    """
    for name in names:
        for end in (IMAGES, TEXTS):
            if (path := Path(folder) / f"{name}{end}").exists():
                raise ValueError(f"{path} is there already: choose another --out, or remove it")


@dataclass(frozen=True)
class Written:
    """The counts of `write`."""

    records: int
    images: int
    """Different images."""
    texts: int
    """Different captions."""
    pairs: int
    """Different pairs of an image and a caption."""
    silent: int
    """Records without a caption, whose images have no text."""


def write(
    records: Iterable[Mapping[str, Any]],
    folder: str | os.PathLike[str],
    name: str = "train",
    *,
    keys: bool = True,
) -> Written:
    """Write records as a split of Chinese-CLIP's files; the same records give the same bytes.

    Equal images are written once, and so are equal captions. Their ids are 1, 2 and so on.

    Args:
        records: mappings with `image` (encoded), `caption` and `key`, such as a `RecordSource`.
        folder: the folder of NAME_imgs.tsv and so on; files of these names are replaced.
        name: start of the files' names, see `name_of`.
        keys: write NAME_keys.csv, with the ids of each record's image and text beside its key.

    Raises:
        OSError: a file cannot be written.
    """
    folder = Path(folder)
    folder.mkdir(parents=True, exist_ok=True)
    image_ids: dict[bytes, int] = {}
    images_of: dict[str, list[int]] = {}
    text_ids: dict[str, int] = {}
    table = io.StringIO(newline="")
    rows = csv.writer(table, lineterminator="\n")
    rows.writerow(("image_id", "text_id", "key"))
    count = silent = 0
    with replacing(folder / f"{name}{IMAGES}") as temporary, open(temporary, "wb") as file:
        for record in records:
            image, caption = record["image"], record["caption"]
            digest = hashlib.blake2b(image, digest_size=16).digest()
            if digest not in image_ids:
                image_ids[digest] = len(image_ids) + 1
                file.write(b"%d\t%s\n" % (image_ids[digest], base64.b64encode(image)))
            number = image_ids[digest]
            count, silent = count + 1, silent + (not caption)
            if caption:
                text_ids.setdefault(caption, len(text_ids) + 1)
                images_of.setdefault(caption, []).append(number)
            rows.writerow((number, text_ids.get(caption, ""), record["key"]))
    with replacing(folder / f"{name}{TEXTS}") as temporary, open(temporary, "wb") as file:
        for caption, text in text_ids.items():
            # One pair of an image and a text is enough.
            ids = list(dict.fromkeys(images_of[caption]))
            line = {"text_id": text, "text": caption, "image_ids": ids}
            file.write(json.dumps(line, ensure_ascii=False).encode() + b"\n")
    if keys:
        write_text(folder / f"{name}{KEYS}", table.getvalue())
    else:
        (folder / f"{name}{KEYS}").unlink(missing_ok=True)
    pairs = sum(len(set(ids)) for ids in images_of.values())
    return Written(count, len(image_ids), len(text_ids), pairs, silent)
