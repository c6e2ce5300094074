"""Which photograph a cell of a table names: by a path or an id, as people write them.

    images/a.jpg   IMAGES\\A.JPG   ./a.jpg   a   D:\\study\\images\\a.jpg   /home/x/images/a.jpg

Nothing outside the dataset's folder is ever named. What fits two photographs names none.
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
"""Paths by which the start of all is judged."""
_ABSOLUTE: Final = re.compile(r"/|[A-Za-z]:/")


class Photographs:
    """The photographs of a folder, found by what a table calls them."""

    def __init__(self, keys: Iterable[str]):
        """Wrap the photographs' paths relative to the folder, with "/"."""
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
        """The photographs whose path ends with the cell, whatever its case, with or without
        suffix; of one that is a number (001.jpg) Excel may have taken the zeros."""
        end = _folded(posixpath.normpath(cell.replace("\\", "/")))
        while end.startswith("../"):
            end = end[3:]
        found = [key for key in self._ends.get(posixpath.basename(end), ()) if _ends(key, end)]
        return sorted(found or (self._ends.get(_number(end), []) if end.isdecimal() else []))

    def find(self, cell: str, home: str = "", split: str = "", side: str = "") -> tuple[str, str]:
        """The photograph that a cell names.

        In this order: the path from the table's folder, then from the dataset's; the one
        photograph whose path ends with the cell, whatever its case and with or without suffix.

        Args:
            cell: a path or id that is not absolute (see `below`).
            home: the table's folder, relative to the dataset's.
            split: of photographs of the same end, those below a folder of this split are meant.
            side: likewise, of this eye.

        Returns:
            (key, "") or, where there is none, (the path as the cell gives it, reason).
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
        found = self.alike(cell)
        if len(found) > 1:
            nearer = [key for key in found if key.startswith(f"{home}/" if home else "")]
            found = nearer or found
        if len(found) > 1 and split:
            found = [key for key in found if split_of_path(key) == split] or found
        if len(found) > 1 and side:
            found = [key for key in found if side_of_path(key) == side] or found
        if len(found) > 1:
            return given, "ambiguous image"
        return (found[0], "") if found else (given, "missing image")

    def by_end(self, cell: str, split: str = "", side: str = "") -> str:
        """The one photograph that the end of a path outside the folder fits, however short the end;
        "" where there is none, or one that lies in the folder of another split or eye.

        Args:
            cell: the path.
            split: of the row, else that of the path.
            side: likewise, of the eye.
        """
        parts = [part for part in cell.replace("\\", "/").split("/") if part not in ("", ".", "..")]
        text = "/".join(parts)
        split, side = split or split_of_path(text), side or side_of_path(text)
        name = _folded(parts[-1]) if parts else ""
        # A longer end fits no more photographs than the name alone: it tells them apart.
        longest = max((key.count("/") + 1 for key in self._ends.get(name, ())), default=1)
        for count in range(min(len(parts), longest), 0, -1):
            found = self.alike("/".join(parts[-count:]))
            fit = [
                key
                for key in found
                if split_of_path(key) in ("", split or split_of_path(key))
                and side_of_path(key) in ("", side or side_of_path(key))
            ]
            if found:
                return fit[0] if len(fit) == 1 else ""
        return ""

    def below(self, cells: Sequence[str]) -> str:
        """The folder that absolute paths start with in place of the dataset's: the one below which
        most of them are found; "" where the cells are not absolute."""
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
        found: Counter[str] = Counter()
        some = absolute[:: len(absolute) // _TRIED + 1]
        for start in reversed(starts):
            found[start] = sum(not self.find(text[len(start) + 1 :])[1] for text in some)
        return max(found, key=lambda start: found[start])


def is_absolute(cell: str) -> bool:
    """Whether a cell starts at a root, Windows' too."""
    return bool(_ABSOLUTE.match(cell.replace("\\", "/")))


def _ends(key: str, end: str) -> bool:
    folded = f"/{_folded(key)}"
    return folded.endswith(f"/{end}") or posixpath.splitext(folded)[0].endswith(f"/{end}")


def _number(stem: str) -> str:
    """The stem, without zeros in front if it is a number."""
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
"""What folders, files and cells call them; "eval" as on the Hugging Face Hub."""


@lru_cache(4096)
def split_of(text: str) -> str:
    """The split that a file, folder or cell is named after ("train-00001", "b. Testing Set",
    "TestImages"), or ""; also "" where it names two."""
    spaced = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", text)
    spaced = re.sub(r"\b(hold)[\s_-]+(out)\b", r"\1\2", spaced, flags=re.IGNORECASE)
    words = re.findall(r"[^\W\d_]+", spaced)
    found = {SPLITS[word.lower()] for word in words if word.lower() in SPLITS}
    return found.pop() if len(found) == 1 else ""


def check_tests(names: Iterable[str], where: str | os.PathLike[str]) -> None:
    """Raises ValueError where "eval" lies beside another test split: it may be for validation."""
    tests = [name for name in dict.fromkeys(names) if split_of(name) == "test"]
    evals = [name for name in tests if "eval" in name.lower()]
    if evals and (others := [name for name in tests if name not in evals]):
        raise ValueError(
            f"{os.fspath(where)}: is {evals[0]!r} for validation, or for test as {others[0]!r}? "
            "Rename it to the one or the other"
        )


def split_of_path(key: str) -> str:
    """The split that the folders of a path name, or "" where they name none or two."""
    found = {split_of(part) for part in key.split("/")[:-1]} - {""}
    return found.pop() if len(found) == 1 else ""


def relative(path: str | os.PathLike[str], root: str | os.PathLike[str]) -> str:
    """The path from `root`, with "/"; "" for `root` itself."""
    text = os.path.relpath(path, root).replace(os.sep, "/")
    return "" if text == "." else text
