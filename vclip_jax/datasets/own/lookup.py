"""The photograph that a table's cell names, by a path or an id, as people write them.

    images/a.jpg   IMAGES\\A.JPG   ./a.jpg   a   D:\\study\\images\\a.jpg   /home/x/images/a.jpg

Nothing outside the dataset's folder is ever named. A cell that fits two photographs names none.
"""

import os
import posixpath
import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property, lru_cache
from typing import Final

from vclip_jax.datasets.own.eyes import side_of_path

_TRIED: Final = 1000
"""Paths from which the common start is judged."""
_ABSOLUTE: Final = re.compile(r"/|[A-Za-z]:/")


class Photographs:
    """The photographs of a folder, found by their names in a table."""

    def __init__(self, keys: Iterable[str]):
        """Take the photographs' paths relative to the folder, with "/"."""
        self._keys = frozenset(keys)

    def __contains__(self, key: str) -> bool:
        return key in self._keys

    @cached_property
    def _ends(self) -> dict[str, list[str]]:
        """Photographs by the ends of their paths: name, stem, number."""
        ends: dict[str, list[str]] = {}
        for key in self._keys:
            name = _folded(posixpath.basename(key))
            stem = posixpath.splitext(name)[0]
            for end in {name, stem, _number(stem)}:
                ends.setdefault(end, []).append(key)
        return ends

    def alike(self, cell: str) -> list[str]:
        """List the photographs whose path ends with the cell, in any case, with or without suffix.

        Leading zeros of a name that is a number (001.jpg) may be missing, because Excel drops them.
        """
        end = _folded(posixpath.normpath(cell.replace("\\", "/")))
        while end.startswith("../"):
            end = end[3:]
        matches = [key for key in self._ends.get(posixpath.basename(end), ()) if _ends(key, end)]
        return sorted(matches or (self._ends.get(_number(end), []) if end.isdecimal() else []))

    def find(self, cell: str, home: str = "", split: str = "", side: str = "") -> tuple[str, str]:
        """Return the photograph that a cell names.

        In this order: the path from the table's folder, then from the dataset's; the one photograph
        whose path ends with the cell, in any case and with or without suffix.

        Args:
            cell: a path or id that is not absolute (see `below`).
            home: the table's folder, relative to the dataset's.
            split: of photographs with the same end, those below a folder of this split are
                preferred.
            side: likewise, for this eye.

        Returns:
            (key, "") or, if there is none, (the path as the cell gives it, reason).
        """
        if not cell or "\0" in cell:
            return "", "missing image"
        if re.match(r"[A-Za-z][A-Za-z0-9+.-]+://", cell):
            return cell, "an address, no file"
        for text in dict.fromkeys((cell, cell.replace("\\", "/"))):
            path = posixpath.normpath(posixpath.join(home, text))
            if path in self._keys:
                return path, ""
        given = posixpath.normpath(posixpath.join(home, cell.replace("\\", "/")))
        if given == ".." or given.startswith(("../", "/")) or re.match(r"[A-Za-z]:/", given):
            return cell, "outside the folder"
        plain = posixpath.normpath(cell.replace("\\", "/"))
        if plain in self._keys:
            return plain, ""
        matches = self.alike(cell)
        if len(matches) > 1:
            nearer = [key for key in matches if key.startswith(f"{home}/" if home else "")]
            matches = nearer or matches
        if len(matches) > 1 and split:
            matches = [key for key in matches if split_of_path(key) == split] or matches
        if len(matches) > 1 and side:
            matches = [key for key in matches if side_of_path(key) == side] or matches
        if len(matches) > 1:
            return given, "ambiguous image"
        return (matches[0], "") if matches else (given, "missing image")

    def by_end(self, cell: str, split: str = "", side: str = "") -> str:
        """Return the one photograph that fits the end of a path outside the folder, however short.

        The result is "" if there is none, or if it is in the folder of another split or eye.

        Args:
            cell: the path.
            split: the row's split, else that of the path.
            side: likewise, for the eye.
        """
        parts = [part for part in cell.replace("\\", "/").split("/") if part not in ("", ".", "..")]
        text = "/".join(parts)
        split, side = split or split_of_path(text), side or side_of_path(text)
        name = _folded(parts[-1]) if parts else ""
        # A longer end fits no more photographs than the name alone.
        longest = max((key.count("/") + 1 for key in self._ends.get(name, ())), default=1)
        for count in range(min(len(parts), longest), 0, -1):
            matches = self.alike("/".join(parts[-count:]))
            fit = [
                key
                for key in matches
                if split_of_path(key) in ("", split or split_of_path(key))
                and side_of_path(key) in ("", side or side_of_path(key))
            ]
            if matches:
                return fit[0] if len(fit) == 1 else ""
        return ""

    def below(self, cells: Sequence[str]) -> str:
        """Return the start of absolute paths that stands for the dataset's folder.

        It is the folder below which most of the cells' paths are found; "" if they are not
        absolute.
        """
        absolute = [
            text for text in (cell.replace("\\", "/") for cell in cells) if is_absolute(text)
        ]
        if not absolute:
            return ""
        common = posixpath.dirname(absolute[0])
        for text in absolute:
            while not text.startswith(f"{common}/") and common:
                common = common.rpartition("/")[0]
        starts = [common]
        while "/" in starts[-1]:
            starts.append(starts[-1].rpartition("/")[0])
        hits: Counter[str] = Counter()
        sample = absolute[:: len(absolute) // _TRIED + 1]
        for start in reversed(starts):
            hits[start] = sum(not self.find(text[len(start) + 1 :])[1] for text in sample)
        return max(hits, key=lambda start: hits[start])


def is_absolute(cell: str) -> bool:
    """Return whether a cell is an absolute path, of Windows too."""
    return bool(_ABSOLUTE.match(cell.replace("\\", "/")))


def _ends(key: str, end: str) -> bool:
    folded = f"/{_folded(key)}"
    return folded.endswith(f"/{end}") or posixpath.splitext(folded)[0].endswith(f"/{end}")


def _number(stem: str) -> str:
    """Return the stem, without leading zeros if it is a number."""
    return stem.lstrip("0") or "0" if stem.isdecimal() else stem


def _folded(text: str) -> str:
    return unicodedata.normalize("NFC", text).casefold()


_SPLIT_WORDS: Final = {
    "train": "train training trainset trn 训练 训练集",
    "validation": "validation valid val dev validationset valset 验证 验证集",
    "test": "test testing testset tst eval 测试 测试集",
    "holdout": "holdout",
}
SPLITS: Final = {word: split for split, words in _SPLIT_WORDS.items() for word in words.split()}
"""Words for splits in folders, files and cells; "eval" as on the Hugging Face Hub."""


@lru_cache(4096)
def split_of(text: str) -> str:
    """Return the split in the name of a file, folder or cell, or "" if it names none or two.

    Names are such as "train-00001", "b. Testing Set", "TestImages".
    """
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    spaced = re.sub(r"\b(hold)[\s_-]+(out)\b", r"\1\2", spaced, flags=re.IGNORECASE)
    words = re.findall(r"[^\W\d_]+", spaced)
    splits = {SPLITS[word.lower()] for word in words if word.lower() in SPLITS}
    return splits.pop() if len(splits) == 1 else ""


def check_tests(names: Iterable[str], where: str | os.PathLike[str]) -> None:
    """Refuse "eval" together with another test split: it may be meant for validation.

    Raises:
        ValueError: one line: both occur among the names.
    """
    tests = [name for name in dict.fromkeys(names) if split_of(name) == "test"]
    evals = [name for name in tests if "eval" in name.lower()]
    if evals and (others := [name for name in tests if name not in evals]):
        raise ValueError(
            f"{os.fspath(where)}: is {evals[0]!r} for validation, or for test as {others[0]!r}? "
            "Rename it to the one or the other"
        )


def split_of_path(key: str) -> str:
    """Return the split in the folders of a path, or "" if they name none or two."""
    splits = {split_of(part) for part in key.split("/")[:-1]} - {""}
    return splits.pop() if len(splits) == 1 else ""


def relative(path: str | os.PathLike[str], root: str | os.PathLike[str]) -> str:
    """Return the path from `root`, with "/"; "" for `root` itself."""
    text = os.path.relpath(path, root).replace(os.sep, "/")
    return "" if text == "." else text
