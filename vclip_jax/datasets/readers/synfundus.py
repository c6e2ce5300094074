"""SynFundus-1M: a million synthetic fundus photographs with Chinese descriptions.

Shang et al., "SynFundus-1M: A High-quality Million-scale Synthetic fundus images Dataset with
Fifteen Types of Annotation", arXiv:2312.00377; https://github.com/parap1uie-s/SynFundus-1M. Licence
of the data: CC BY-NC-SA 4.0. This reader was written without access to the data: columns and
layouts are from programs and issues that use it. Three forms are read:

* `SynFundus-1M_annotation.csv` (or `..._with_is_readable.csv`): the annotation of each picture by
  models, with the description `diagnosticAdvice` ("疑似青光眼。") and the image's `file_name`;
* `SynFundus-1M_gen_cond.csv`: the conditions from which each picture was generated, without
  descriptions. The captions are then written from the columns; that `eye_side` 0 is the left eye is
  not verified;
* Hugging Face's .parquet shards with an image and its description, perhaps with the columns above
  (the published shards could not be read).

Images are anywhere up to four folders down, or unextracted in .zip files: Part0/0.png ...
Part19/999999.png (picture i in Part min(19, i // 50000)), or Fundus/4899.png, or Part0.zip. They
are found by their names, which are unique in the dataset.

The label is the one disease in the columns; "normal" if the columns have none and nothing else is
evidence of a finding; and -1 otherwise (several diseases, missing columns, a finding that is none
of the eleven). A DR grade above 0 is a disease. Evidence of a finding is a further column (is_md,
is_mh, has_lesion, is_tessellated, is_treated; 1, or empty), or a description that names something
without denying it: three of the five published rows have none of the eleven diseases in their
columns ("疑似黄斑区域病变。", "可见出血斑。", "疑似高血压性视网膜病变（中度）。").
A 1 in `is_abnormal` counts too, a 0 does not: in every published row it is 0, even for diseased
eyes.

Columns and descriptions come from different models and sometimes disagree; the number of such rows
is noted.
"""

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Final

import numpy as np

from vclip_jax.datasets.listing import (
    Blob,
    Item,
    Listing,
    Reject,
    Value,
    choose,
    split_by_hash,
)
from vclip_jax.datasets.readers.synfundus_files import (
    CAPTIONS,
    POSITIVE,
    SourceTable,
    index_images,
    open_table,
)
from vclip_jax.datasets.readers.words import RETINOPATHY
from vclip_jax.datasets.synthetic.annotation import DISEASES, READABLE

CLASSES: Final = ("normal", "diabetic retinopathy", *DISEASES.values())
"""Names of the labels; the DR grade is the first, the others follow their columns' names."""

NAMES: Final = (
    re.compile("糖尿病性?视网膜病变"),
    re.compile("(年龄相关|老年)性黄斑变性"),
    re.compile("(?<!青光眼性)视神经|视盘(水肿|异常|缺损)|视乳头水肿"),
    re.compile("脉络膜视网膜"),
    re.compile("退行性近视|高度近视|变性近视"),
    re.compile("糖尿病性?黄斑水肿"),
    re.compile("前膜"),
    re.compile("青光眼"),
    re.compile("高血压性?视网膜病变"),
    re.compile("病理性近视"),
    re.compile("静脉阻塞"),
)
"""Names of the diseases in descriptions, in the order of `POSITIVE`."""

_DISEASE_WORDS: Final = {
    "is_amd": ("年龄相关性黄斑变性", "老年性黄斑变性"),
    "is_aon": ("视神经异常", "视盘异常"),
    "is_crp": ("脉络膜视网膜病变",),
    "is_dm": ("退行性近视", "高度近视眼底改变"),
    "is_dme": ("糖尿病黄斑水肿", "糖尿病性黄斑水肿"),
    "is_em": ("黄斑前膜", "视网膜前膜"),
    "is_gc": ("青光眼", "青光眼性视神经病变"),
    "is_htr": ("高血压性视网膜病变", "高血压视网膜病变"),
    "is_pm": ("病理性近视",),
    "is_rvo": ("视网膜静脉阻塞",),
}
_NORMAL_WORDS: Final = ("眼底未见明显异常", "正常眼底", "眼底大致正常", "未见明显眼底病变")
_SUSPECT: Final = ("疑似", "考虑", "")
_TEMPLATES: Final = (
    "{words}。",
    "{eye}：{words}。",
    "{eye}眼底彩照：{words}。",
    "眼底照：{words}。",
)
_EYES: Final = ("左眼", "右眼")

_SCORE: Final = "retinal_region_quality_score"
_RESERVED: Final = ("image", "caption", "key", "label")
"""Features that every built dataset has."""

FINDINGS: Final = ("is_abnormal", "is_md", "is_mh", "has_lesion", "is_tessellated", "is_treated")
"""Columns of findings that are none of the eleven diseases and yet not normal."""

_DENIED: Final = re.compile("(未见|未发现|无|没有|排除|否认|不考虑|不伴).*")
_FOUND: Final = re.compile(
    "疑似|疑为|可疑|考虑|(?<!反光)可见|病变|变性|变薄|变窄|变细|出血|渗出|水肿|阻塞|裂孔|前膜|萎缩|瘤|疣|"
    "棉绒斑|新生血管|脱离|增殖|增生|青光眼|近视|瘢痕|激光|光凝|豹纹|异常|缺损|增大|扩大|切迹|混浊|白内障|"
    "硬化|迂曲|炎|病理|病灶|隆起|色淡|苍白|皱褶|压迹|压迫|葡萄肿|漆裂纹|有髓|金箔|玻璃纸|圆孔|(?<!窥)不清|消失|减弱|"
    "边界模糊|杯盘比约(0[.][89]|1)"
)
"""Words of a finding, unless an earlier word of their clause denies it."""

_NEGATED: Final = re.compile("^([左右双]眼)?(未见|无|没有|排除|否认|不考虑)")
_SEED: Final = 0


@dataclass
class _Counts:
    """Counts for the notes."""

    disagree: int = 0
    findings: int = 0
    """Rows without a disease in the columns that are nevertheless not normal."""
    abnormal: int = 0
    diseased: int = 0
    named: dict[str, int] = field(default_factory=dict)
    """Caption -> a bit for every disease that it names."""


def scan(
    source: str | os.PathLike[str],
    *,
    table: str = "auto",
    split: str = "hash",
    readable: str = "all",
) -> Listing:
    """List SynFundus-1M, in about half a minute and a gigabyte of memory.

    Args:
        source: the folder as downloaded.
        table: "annotation", "gen_cond", or "auto": the annotations, else the conditions, else
            .parquet.
        split: "hash" of the key, or "random": a seeded permutation, as in the paper; 8:1:1 both.
        readable: "all", "fundus" (is_fundus) or "strict" (is_fundus, and macula, disc and retina
            are readable); other photographs are rejects.

    Raises:
        ValueError: one line: an option is unknown, there is no table or no image, or the table
            has a fault.
    """
    root = Path(source)
    for value, choices in (
        (table, ("auto", "annotation", "gen_cond")),
        (split, ("hash", "random")),
        (readable, ("all", "fundus", "strict")),
    ):
        if value not in choices:
            raise ValueError(f"SynFundus-1M: use one of {', '.join(choices)}, not {value!r}")
    opened = open_table(root, table)
    images = index_images(root) if opened.kind != "parquet" else {}
    if not images and opened.kind != "parquet":
        raise ValueError(f"{root}: there is no image in it, in folders or .zip files")
    items, rejects, counts = _collect(opened, images, readable)
    if split == "random":
        items = _randomly(items)
    variant = [opened.kind if opened.kind != "annotation" else ""]
    variant += [split if split != "hash" else "", readable if readable != "all" else ""]
    return Listing(
        name="synfundus",
        classes=CLASSES,
        items=items,
        rejects=rejects,
        columns={_name(column): _kind(column) for column in _kept(opened)},
        variant="-".join(part for part in variant if part),
        notes=_notes(opened, split, counts, len(items)),
        description="Synthetic fundus photographs with Chinese descriptions and eleven diseases.",
        homepage="https://github.com/parap1uie-s/SynFundus-1M",
        licence="CC BY-NC-SA 4.0",
    )


# --- Rows.


def _collect(
    table: SourceTable, images: dict[str, Blob], readable: str
) -> tuple[list[Item], list[Reject], _Counts]:
    header = table.header
    place = {name: index for index, name in enumerate(header)}
    diseases = [place.get(name, -1) for name in POSITIVE]
    needed = {"all": (), "fundus": READABLE[:1], "strict": READABLE}[readable]
    if missing := [name for name in needed if name not in place]:
        raise ValueError(f"{table.path}: readable={readable} needs {', '.join(missing)}")
    must = [place[name] for name in needed]
    kept = [(place[column], _kind(column)) for column in _kept(table)]
    advice = next((place[name] for name in CAPTIONS if name in place), -1)
    eye = place.get("eye_side", -1)
    abnormal = place.get("is_abnormal", -1)
    further = [place[name] for name in FINDINGS[1:] if name in place]
    captions: dict[str, str] = {}
    numbers: dict[Any, int | None] = {}
    items: list[Item] = []
    rejects: list[Reject] = []
    counts = _Counts()
    seen: set[str] = set()

    def number(cell: Any) -> int | None:
        if cell not in numbers:
            numbers[cell] = _whole(cell)
        return numbers[cell]

    for key, image, cells in table.rows:
        if len(cells) > len(header) and any(cells[len(header) :]):
            detail = f"{table.path.name}: {key} has more cells than there are columns"
            rejects.append(Reject(key, "surplus cells", detail))
            images.pop(key, None)
            continue
        if key in seen:
            rejects.append(Reject(key, "duplicate row", f"{table.path.name} lists {key} again"))
            continue
        seen.add(key)
        image = image or images.pop(key, None)
        if image is None:
            rejects.append(Reject(key, "missing image", f"no image is called {key}"))
            continue
        values = _values(cells, kept, number)
        disease_values = [number(cells[index]) if index >= 0 else -1 for index in diseases]
        if values is None or None in disease_values:
            rejects.append(Reject(key, "invalid label", f"{key}: a cell is not a whole number"))
            continue
        if any(number(cells[index]) != 1 for index in must):
            rejects.append(Reject(key, "not readable", f"{key}: by the columns"))
            continue
        positive = sum((value or 0) > 0 and 1 << bit for bit, value in enumerate(disease_values))
        if table.kind == "gen_cond":
            side = number(cells[eye]) if eye >= 0 else None
            caption = compose(key, positive, disease_values[0] or 0, side)
        else:
            caption = str(cells[advice] or "").strip()
            if not caption:
                rejects.append(Reject(key, "empty caption", f"{key} has no description"))
                continue
            caption = captions.setdefault(caption, caption)
            if -1 not in disease_values:
                counts.disagree += _named(caption, counts.named) != positive
        is_abnormal = abnormal >= 0 and number(cells[abnormal]) == 1
        counts.diseased += bool(positive)
        counts.abnormal += bool(positive) and is_abnormal
        label = _label(positive) if -1 not in disease_values else -1
        if label == 0 and (
            is_abnormal
            or any(number(cells[index]) != 0 for index in further)
            or tells_finding(caption)
        ):
            counts.findings += 1
            label = -1
        items.append(Item(key, split_by_hash(key), image, caption, label, values))
    for key, blob in images.items():
        rejects.append(Reject(key, "missing row", f"{table.path.name} lacks {blob}"))
    return items, rejects, counts


def _kept(table: SourceTable) -> list[str]:
    """List the columns that become features: all named ones except the caption."""
    names = [name for name in table.header if name and not name.startswith("Unnamed")]
    return [name for name in names if name not in (*CAPTIONS, *_RESERVED)]


def _name(column: str) -> str:
    return re.sub(r"\W", "_", column)


def _kind(column: str) -> type:
    if column == _SCORE:
        return float
    known = column in ("idx", "dr_grade", "eye_side") or column.startswith(("is_", "has_"))
    return int if known else str


def _values(
    cells: Sequence[Any], kept: Sequence[tuple[int, type]], number: Any
) -> tuple[Value, ...] | None:
    """Return a row's typed values, None if a cell has another type; an empty number is -1."""
    values: list[Value] = []
    for index, kind in kept:
        cell = cells[index]
        if kind is str:
            values.append("" if cell is None else str(cell))
        elif kind is int:
            value = number(cell)
            if value is None:
                return None
            values.append(value)
        else:
            try:
                values.append(float(cell) if cell not in ("", None) else -1.0)
            except ValueError:
                return None
    return tuple(values)


def _whole(cell: Any) -> int | None:
    if cell in ("", None):
        return -1
    if str(cell) in ("True", "False"):
        return int(str(cell) == "True")
    try:
        value = float(cell)
    except ValueError:
        return None
    return int(value) if value.is_integer() else None


def _label(positive: int) -> int:
    """Return the class of the diseases' bits: 0 if there is none, -1 if there are several."""
    return positive.bit_length() if positive.bit_count() <= 1 else -1


@lru_cache(1 << 16)  # captions repeat
def tells_finding(caption: str) -> bool:
    """Return whether a description names a finding in a clause that does not deny it."""
    clauses = re.split("[，。；：、,;:]", caption)
    return any(_FOUND.search(_DENIED.sub("", clause)) for clause in clauses)


def _named(caption: str, memory: dict[str, int]) -> int:
    """Return the bits of the diseases that a description names and does not deny."""
    if caption not in memory:
        clauses = [
            part for part in re.split("[，。；：、,;:]", caption) if not _NEGATED.match(part)
        ]
        text = "，".join(clauses)
        memory[caption] = sum(1 << bit for bit, name in enumerate(NAMES) if name.search(text))
    return memory[caption]


def compose(key: str, positive: int, grade: int, side: int | None) -> str:
    """Return a description of generation conditions; its wording varies with the key.

    Args:
        key: the picture's key.
        positive: a bit for every disease, in the order of the classes from 1.
        grade: grade of diabetic retinopathy, 0 to 4.
        side: 0 left, 1 right, else unknown.
    """
    phrases: list[tuple[str, ...]] = []
    if positive & 1:
        phrases.append(RETINOPATHY[min(grade, 4)])
    for bit, column in enumerate(POSITIVE[1:], start=1):
        if positive >> bit & 1:
            phrases.append(_DISEASE_WORDS[column])
    suspect = choose(_SUSPECT, key, "suspect") if phrases else ""
    chosen = [choose(words, key, "words") for words in phrases or [_NORMAL_WORDS]]
    # "Suspected" does not fit before "only microaneurysms are seen".
    words = "，".join(word if word.startswith("仅见") else suspect + word for word in chosen)
    template = choose(_TEMPLATES, key, "template")
    if "{eye}" in template and side not in (0, 1):
        template = _TEMPLATES[0]
    return template.format(words=words, eye=_EYES[side or 0])


def _randomly(items: list[Item]) -> list[Item]:
    """Split by a permutation of the rows in their order, 8:1:1."""
    generator = np.random.Generator(np.random.Philox(_SEED))
    ranks = generator.permutation(len(items)) * 10 // max(1, len(items))
    names = ("train",) * 8 + ("validation", "test")
    return [replace(item, split=names[rank]) for item, rank in zip(items, ranks, strict=True)]


def _notes(table: SourceTable, split: str, counts: _Counts, kept: int) -> list[str]:
    notes = []
    if table.kind == "gen_cond":
        notes.append(
            "The captions are written from the generation conditions; eye_side 0 is taken for the "
            "left eye, which is not verified."
        )
    if "dr_grade" in table.header and table.kind != "gen_cond":
        notes.append(
            f"{counts.disagree} of {kept} captions name other diseases than the columns have, as "
            "far as their words tell."
        )
    if counts.findings:
        notes.append(
            f"{counts.findings} rows without a disease in the columns have another finding, in "
            "other columns or in their words: they are of no class."
        )
    if "is_abnormal" in table.header:
        notes.append(
            f"is_abnormal is 1 in {counts.abnormal} of {counts.diseased} rows with a disease: a 0 "
            "is not taken for normal."
        )
    if "dr_grade" not in table.header:
        notes.append("There are no columns of diseases, so no labels.")
    if split == "random":
        notes.append(f"Split at random with NumPy's Philox, seed {_SEED}, by the rows' order.")
    return notes
