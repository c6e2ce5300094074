"""IDRiD's disease-grading task as a TFDS builder, from the folder as it is distributed.

Porwal et al., "Indian Diabetic Retinopathy Image Dataset (IDRiD)", Data 3(3):25, 2018. Licence of
the data: CC BY 4.0. Layout read here:

    B. Disease Grading/
      1. Original Images/a. Training Set/IDRiD_001.jpg ...      413 images
      1. Original Images/b. Testing Set/IDRiD_001.jpg ...       103 images, optional
      2. Groundtruths/a. IDRiD_Disease Grading_Training Labels.csv
      2. Groundtruths/b. IDRiD_Disease Grading_Testing Labels.csv

Splits: `train` (about 80 %) and `holdout` (about 20 %) divide the training set by a hash of the
key, and `test` is the testing set, left out where that is not there. IDRiD's own training set is
"train+holdout". Keys name the set too, because both count from IDRiD_001.
"""

import contextlib
import csv
import hashlib
import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import tensorflow_datasets as tfds

from vclip_jax.data.decode import ImageError, bounded_jpeg
from vclip_jax.datasets.records import DatasetError

CLASSES: Final = (
    "no diabetic retinopathy",
    "mild diabetic retinopathy",
    "moderate diabetic retinopathy",
    "severe diabetic retinopathy",
    "proliferative diabetic retinopathy",
)
"""ICDR grades 0 to 4, the order of the labels."""

_IMAGES: Final = "1. Original Images"
_LABELS: Final = "2. Groundtruths"
_PARTS: Final = {
    "train": ("a. Training Set", "a. IDRiD_Disease Grading_Training Labels.csv"),
    "test": ("b. Testing Set", "b. IDRiD_Disease Grading_Testing Labels.csv"),
}
_NAME, _RETINOPATHY, _DME = "Image name", "Retinopathy grade", "Risk of macular edema"

_RETINOPATHY_WORDS: Final = (
    ("未见糖尿病视网膜病变", "无糖尿病视网膜病变", "未见糖尿病视网膜病变征象"),
    (
        "轻度非增殖期糖尿病视网膜病变",
        "轻度糖尿病视网膜病变",
        "仅见微血管瘤，轻度非增殖期糖尿病视网膜病变",
    ),
    ("中度非增殖期糖尿病视网膜病变", "中度糖尿病视网膜病变", "糖尿病视网膜病变（中度）"),
    ("重度非增殖期糖尿病视网膜病变", "重度糖尿病视网膜病变", "糖尿病视网膜病变（重度）"),
    ("增殖期糖尿病视网膜病变", "增殖性糖尿病视网膜病变", "糖尿病视网膜病变（增殖期）"),
)
_DME_WORDS: Final = (
    ("未见糖尿病黄斑水肿", "黄斑区未见硬性渗出"),
    ("黄斑中心一个视盘直径以外可见硬性渗出", "轻度糖尿病黄斑水肿，硬性渗出远离黄斑中心"),
    ("糖尿病黄斑水肿，硬性渗出邻近黄斑中心", "黄斑中心一个视盘直径以内可见硬性渗出"),
)
"""IDRiD's risk: 0 no exudates, 1 exudates outside, 2 within one disc diameter of the fovea."""
_TEMPLATES: Final = ("{dr}，{dme}。", "眼底彩照：{dr}，{dme}。", "眼底照：{dr}；{dme}。")


@dataclass
class IdridConfig(tfds.core.BuilderConfig):
    """How images are stored; `idrid_config` fills in the name."""

    max_side: int = 1024
    """Longest side in pixels; larger images are scaled down."""
    quality: int = 95
    """Of the JPEGs that are written anew."""


def idrid_config(max_side: int = 1024, quality: int = 95) -> IdridConfig:
    """A config named after what it does to images, such as "1024px-q95".

    Raises:
        ValueError: a side below 32 pixels or a quality that is not 1 to 100.
    """
    if max_side < 32 or not 1 <= quality <= 100:
        raise ValueError(
            f"IDRiD needs max_side >= 32 and quality 1 to 100, got {max_side} and {quality}"
        )
    return IdridConfig(name=f"{max_side}px-q{quality}", max_side=max_side, quality=quality)


@dataclass(frozen=True)
class Photograph:
    """One row of a label file with its image."""

    key: str
    path: Path
    retinopathy: int
    """0 to 4."""
    dme: int
    """0 to 2."""


@dataclass
class Rejects:
    """What was left out: the problem's name -> the keys that have it."""

    keys: dict[str, list[str]] = field(default_factory=dict)
    skip: bool = False

    def add(self, problem: str, key: str, message: str) -> None:
        """Note a problem.

        Raises:
            DatasetError: problems are not to be skipped.
        """
        if not self.skip:
            raise DatasetError(f"{message} (--skip_bad leaves such images out)")
        self.keys.setdefault(problem, []).append(key)


class Idrid(tfds.core.GeneratorBasedBuilder):
    """Fundus photographs of IDRiD's disease-grading task with grades and Chinese captions.

    The captions are written from the grades; IDRiD has none.
    """

    VERSION = tfds.core.Version("1.0.0")
    builder_config: IdridConfig

    def __init__(
        self,
        *,
        source: str | os.PathLike[str] | None = None,
        rejects: Rejects | None = None,
        **kwargs: Any,
    ):
        """`source` is the folder as downloaded; `rejects` takes what was left out."""
        self._source = source
        self._rejects = rejects or Rejects()
        super().__init__(**kwargs)

    def _info(self) -> tfds.core.DatasetInfo:
        return tfds.core.DatasetInfo(
            builder=self,
            description=type(self).__doc__,
            homepage="https://doi.org/10.3390/data3030025",
            features=tfds.features.FeaturesDict(
                {
                    "image": tfds.features.Image(shape=(None, None, 3), encoding_format="jpeg"),
                    "caption": tfds.features.Text(),
                    "key": tfds.features.Text(),
                    "label": tfds.features.ClassLabel(names=CLASSES),
                    "dme": tfds.features.Scalar(dtype=np.int64),
                }
            ),
        )

    def _split_generators(self, dl_manager: tfds.download.DownloadManager) -> dict[str, Any]:
        del dl_manager
        if self._source is None:
            raise DatasetError("IDRiD must be downloaded by hand: give its folder as the source")
        splits: dict[str, list[Photograph]] = {}
        for photograph in read_layout(self._source, self._rejects):
            splits.setdefault(split_of(photograph.key), []).append(photograph)
        return {split: self._generate_examples(of) for split, of in sorted(splits.items())}

    def _generate_examples(
        self, photographs: list[Photograph]
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        config = self.builder_config
        for one in photographs:
            try:
                data = one.path.read_bytes()
                image = bounded_jpeg(data, config.max_side, config.quality, key=one.key)
            except (OSError, ImageError) as error:
                self._rejects.add("unreadable image", one.key, f"{one.path}: {error}")
                continue
            yield (
                one.key,
                {
                    "image": image,
                    "caption": caption(one.key, one.retinopathy, one.dme),
                    "key": one.key,
                    "label": one.retinopathy,
                    "dme": one.dme,
                },
            )


def build(
    source: str | os.PathLike[str],
    data_dir: str | os.PathLike[str],
    *,
    max_side: int = 1024,
    quality: int = 95,
    skip_bad: bool = False,
) -> tuple[Idrid, dict[str, list[str]]]:
    """Build IDRiD under `data_dir`, unless it is there already.

    Args:
        source: the folder "B. Disease Grading" or the one above it.
        data_dir: the files go to data_dir/idrid/CONFIG/VERSION.
        max_side, quality: see `IdridConfig`.
        skip_bad: leave out what cannot be used instead of stopping at the first.

    Returns:
        The builder and what was left out: the problem's name -> keys.

    Raises:
        DatasetError: the layout is not IDRiD's, or an image or a label is missing or unusable.
        ValueError: see `idrid_config`.
    """
    rejects = Rejects(skip=skip_bad)
    builder = Idrid(
        source=source,
        rejects=rejects,
        config=idrid_config(max_side, quality),
        data_dir=data_dir,
        file_format="array_record",
    )
    with contextlib.redirect_stdout(sys.stderr):  # TFDS prints that it "downloads"
        builder.download_and_prepare()
    return builder, rejects.keys


def read_layout(source: str | os.PathLike[str], rejects: Rejects) -> list[Photograph]:
    """All photographs of a folder that have both an image and grades, in the order of their keys.

    Raises:
        DatasetError: the training set is not there, a label file is not IDRiD's, or, unless
            `rejects` skips them, an image has no label, a label no image or no valid grade.
    """
    root = Path(source)
    if not (root / _IMAGES).is_dir():
        root = root / "B. Disease Grading"
    photographs = []
    for part, (images, labels) in _PARTS.items():
        folder, table = root / _IMAGES / images, root / _LABELS / labels
        if part == "test" and not folder.is_dir() and not table.is_file():
            continue
        for needed in (folder, table):
            if not needed.exists():
                raise DatasetError(
                    f"{source}: not IDRiD's disease-grading folder, it lacks "
                    f"{needed.relative_to(root)!s}"
                )
        photographs += _read_part(part, folder, table, rejects)
    if not photographs:
        raise DatasetError(f"{source}: there is no photograph with a label in it")
    return photographs


def _read_part(part: str, folder: Path, table: Path, rejects: Rejects) -> list[Photograph]:
    files = {path.stem: path for path in folder.iterdir() if path.suffix.lower() == ".jpg"}
    photographs: dict[str, Photograph] = {}
    rows = _read_table(table)
    for name in sorted(rows):
        key, (retinopathy, dme) = f"{part}/{name}", rows[name]
        if name not in files:
            rejects.add("missing image", key, f"{table.name} lists {name}: not in {folder}")
        elif retinopathy is None or dme is None:
            rejects.add("missing label", key, f"{table.name}: {name} has no valid grades")
        else:
            photographs[name] = Photograph(key, files[name], retinopathy, dme)
    for name in sorted(files.keys() - rows.keys()):
        rejects.add("missing label", f"{part}/{name}", f"{files[name]}: not in {table.name}")
    return list(photographs.values())


def _read_table(table: Path) -> dict[str, tuple[int | None, int | None]]:
    """Image name -> (retinopathy 0-4, macular oedema 0-2), None for what is not such a grade."""
    # The header has a space after its last name and empty columns behind; one file has a BOM.
    with open(table, encoding="utf-8-sig", newline="") as file:
        rows = [[cell.strip() for cell in row] for row in csv.reader(file)]
    header = rows[0] if rows else []
    if not {_NAME, _RETINOPATHY, _DME} <= set(header):
        raise DatasetError(
            f"{table}: expected the columns {_NAME!r}, {_RETINOPATHY!r} and {_DME!r}, "
            f"got {[name for name in header if name]}"
        )
    name, retinopathy, dme = (header.index(column) for column in (_NAME, _RETINOPATHY, _DME))
    graded: dict[str, tuple[int | None, int | None]] = {}
    for row in rows[1:]:
        row = row + [""] * (len(header) - len(row))
        if not any(row):
            continue
        if row[name] in graded:
            raise DatasetError(f"{table}: {row[name]!r} is listed more than once")
        graded[row[name]] = (_grade(row[retinopathy], 4), _grade(row[dme], 2))
    return graded


def _grade(cell: str, highest: int) -> int | None:
    return int(cell) if cell.isdecimal() and int(cell) <= highest else None


def split_of(key: str) -> str:
    """The split of a photograph, by its key alone; a fifth of the training set is held out."""
    if key.startswith("test/"):
        return "test"
    return "holdout" if _hash(key, "split") % 5 == 0 else "train"


def caption(key: str, retinopathy: int, dme: int) -> str:
    """A Chinese caption of the grades; the wording varies with the key, and with it alone."""
    dr_words, dme_words = _RETINOPATHY_WORDS[retinopathy], _DME_WORDS[dme]
    return _TEMPLATES[_hash(key, "template") % len(_TEMPLATES)].format(
        dr=dr_words[_hash(key, "dr") % len(dr_words)],
        dme=dme_words[_hash(key, "dme") % len(dme_words)],
    )


def _hash(key: str, purpose: str) -> int:
    return int.from_bytes(hashlib.sha256(f"{purpose}:{key}".encode()).digest()[:8], "big")
