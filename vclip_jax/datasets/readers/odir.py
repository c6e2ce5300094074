"""ODIR-5K: both eyes of 3,500 patients with doctors' keywords, from hospitals all over China.

Peking University International Competition on Ocular Disease Intelligent Recognition (ODIR-2019),
https://odir2019.grand-challenge.org. Licence of the data: the challenge's terms, for research. Two
layouts are read, the challenge's and Kaggle's (andrewmvd/ocular-disease-recognition-odir5k):

    ODIR-5K_Training_Images/ODIR-5K_Training_Dataset/0_left.jpg, 0_right.jpg ...    7,000 images
    ODIR-5K_Training_Annotations(Updated)_V2.xlsx

    ODIR-5K/ODIR-5K/Training Images/0_left.jpg ...      ODIR-5K/ODIR-5K/data.xlsx
    full_df.csv                                         preprocessed_images/0_left.jpg ...

The tables have ID, Patient Age, Patient Sex, Left-Fundus, Right-Fundus, Left-Diagnostic Keywords,
Right-Diagnostic Keywords and the patient's classes N, D, G, C, A, H, M, O; `full_df.csv` has one
row an image, named by its column `filename`, and lacks some images, so it is read only if the full
table is missing.

The patient's classes belong to both eyes together; here an eye has the classes of its own keywords,
as in most work on single images. By the challenge's page, "lens dust", "optic disk photographically
invisible", "low image quality" and "image offset" do not affect the class (read from programs that
quote the page), and a suspected disease counts as the disease. Images without a fundus ("no fundus
image", "anterior segment image") are left out. The label is the one class that applies, and -1 for
none or several.

All images are in the split "train": they are the challenge's training data, its test sets have no
keywords, and captions in doctors' own words are worth training on. They can also be scored, by a
model that was not trained on them.
"""

import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final

from vclip_jax.datasets.formats.tables import Row, read_table, require, whole
from vclip_jax.datasets.listing import Blob, Item, Listing, Reject, Value
from vclip_jax.datasets.readers import pairing
from vclip_jax.datasets.readers.words import caption

LETTERS: Final = "NDGCAHMO"
CLASSES: Final = (
    "normal",
    "diabetic retinopathy",
    "glaucoma",
    "cataract",
    "age-related macular degeneration",
    "hypertensive retinopathy",
    "pathologic myopia",
    "other diseases",
)
"""Classes in the order of the letters.

The challenge names diabetes and hypertension, of which a photograph shows the retinopathy.
"""

NOT_DECISIVE: Final = {
    "lens dust": ("镜头灰尘伪影", "可见镜头灰尘"),
    "optic disk photographically invisible": ("视盘未拍入", "视盘不可见"),
    "low image quality": ("图像质量较差", "图像质量欠佳"),
    "image offset": ("图像偏位", "拍摄位置偏移"),
}
NO_FUNDUS: Final = ("no fundus image", "anterior segment image")

CLASS_WORDS: Final = (
    ("眼底未见明显异常", "正常眼底", "眼底正常"),
    ("糖尿病视网膜病变", "糖尿病性视网膜病变"),
    ("青光眼", "青光眼性视神经改变"),
    ("白内障", "屈光间质混浊，白内障"),
    ("年龄相关性黄斑变性", "老年性黄斑变性"),
    ("高血压性视网膜病变", "高血压视网膜病变"),
    ("病理性近视", "病理性近视眼底改变"),
    ("其他眼底病变", "眼底其他异常"),
)

KEYWORDS: Final[dict[str, tuple[str, tuple[str, ...]]]] = {
    "normal fundus": ("N", CLASS_WORDS[0]),
    "diabetic retinopathy": ("D", CLASS_WORDS[1]),
    "mild nonproliferative retinopathy": (
        "D",
        ("轻度非增殖期糖尿病视网膜病变", "轻度糖尿病视网膜病变"),
    ),
    "moderate non proliferative retinopathy": (
        "D",
        ("中度非增殖期糖尿病视网膜病变", "中度糖尿病视网膜病变"),
    ),
    "severe nonproliferative retinopathy": (
        "D",
        ("重度非增殖期糖尿病视网膜病变", "重度糖尿病视网膜病变"),
    ),
    "proliferative diabetic retinopathy": (
        "D",
        ("增殖期糖尿病视网膜病变", "增殖性糖尿病视网膜病变"),
    ),
    "severe proliferative diabetic retinopathy": (
        "D",
        ("重度增殖期糖尿病视网膜病变", "重度增殖性糖尿病视网膜病变"),
    ),
    "glaucoma": ("G", CLASS_WORDS[2]),
    "cataract": ("C", CLASS_WORDS[3]),
    "age-related macular degeneration": ("A", CLASS_WORDS[4]),
    "dry age-related macular degeneration": (
        "A",
        ("干性年龄相关性黄斑变性", "萎缩型年龄相关性黄斑变性"),
    ),
    "wet age-related macular degeneration": (
        "A",
        ("湿性年龄相关性黄斑变性", "渗出型年龄相关性黄斑变性"),
    ),
    "hypertensive retinopathy": ("H", CLASS_WORDS[5]),
    "pathological myopia": ("M", CLASS_WORDS[6]),
    "myopia retinopathy": ("M", ("近视性视网膜病变",)),
    "myopic retinopathy": ("M", ("近视性视网膜病变",)),
    "myopic maculopathy": ("M", ("近视性黄斑病变",)),
    "macular epiretinal membrane": ("O", ("黄斑前膜", "黄斑视网膜前膜")),
    "epiretinal membrane over the macula": ("O", ("黄斑前膜", "黄斑视网膜前膜")),
    "epiretinal membrane": ("O", ("视网膜前膜",)),
    "drusen": ("O", ("玻璃膜疣", "可见玻璃膜疣")),
    "myelinated nerve fibers": ("O", ("有髓神经纤维",)),
    "vitreous degeneration": ("O", ("玻璃体变性", "玻璃体混浊变性")),
    "vitreous opacity": ("O", ("玻璃体混浊",)),
    "asteroid hyalosis": ("O", ("星状玻璃体变性",)),
    "refractive media opacity": ("O", ("屈光间质混浊",)),
    "tessellated fundus": ("O", ("豹纹状眼底",)),
    "branch retinal vein occlusion": ("O", ("视网膜分支静脉阻塞",)),
    "central retinal vein occlusion": ("O", ("视网膜中央静脉阻塞",)),
    "old branch retinal vein occlusion": ("O", ("陈旧性视网膜分支静脉阻塞",)),
    "old central retinal vein occlusion": ("O", ("陈旧性视网膜中央静脉阻塞",)),
    "branch retinal artery occlusion": ("O", ("视网膜分支动脉阻塞",)),
    "central retinal artery occlusion": ("O", ("视网膜中央动脉阻塞",)),
    "central serous chorioretinopathy": ("O", ("中心性浆液性脉络膜视网膜病变",)),
    "maculopathy": ("O", ("黄斑病变",)),
    "macular hole": ("O", ("黄斑裂孔",)),
    "macular coloboma": ("O", ("黄斑缺损",)),
    "macular pigmentation disorder": ("O", ("黄斑区色素紊乱",)),
    "chorioretinal atrophy": ("O", ("脉络膜视网膜萎缩",)),
    "diffuse chorioretinal atrophy": ("O", ("弥漫性脉络膜视网膜萎缩",)),
    "chorioretinal atrophy with pigmentation proliferation": (
        "O",
        ("脉络膜视网膜萎缩伴色素增生",),
    ),
    "diffuse retinal atrophy": ("O", ("弥漫性视网膜萎缩",)),
    "retinal pigment epithelium atrophy": ("O", ("视网膜色素上皮萎缩",)),
    "pigment epithelium proliferation": ("O", ("色素上皮增生",)),
    "depigmentation of the retinal pigment epithelium": ("O", ("视网膜色素上皮脱色素",)),
    "retinal pigmentation": ("O", ("视网膜色素沉着",)),
    "peripapillary atrophy": ("O", ("视盘周围萎缩", "视盘旁萎缩弧")),
    "optic nerve atrophy": ("O", ("视神经萎缩",)),
    "optic disc edema": ("O", ("视盘水肿",)),
    "optic discitis": ("O", ("视盘炎",)),
    "morning glory syndrome": ("O", ("牵牛花综合征",)),
    "congenital choroidal coloboma": ("O", ("先天性脉络膜缺损",)),
    "retinochoroidal coloboma": ("O", ("视网膜脉络膜缺损",)),
    "retinitis pigmentosa": ("O", ("视网膜色素变性",)),
    "retinal detachment": ("O", ("视网膜脱离",)),
    "rhegmatogenous retinal detachment": ("O", ("孔源性视网膜脱离",)),
    "silicone oil eye": ("O", ("硅油填充眼",)),
    "laser spot": ("O", ("可见激光斑", "视网膜激光斑")),
    "fundus laser photocoagulation spots": ("O", ("眼底激光光凝斑",)),
    "post laser photocoagulation": ("O", ("激光光凝术后",)),
    "post retinal laser surgery": ("O", ("视网膜激光术后",)),
    "spotted membranous change": ("O", ("斑点状膜样改变",)),
    "white vessel": ("O", ("血管白线",)),
    "vessel tortuosity": ("O", ("血管迂曲",)),
    "retinal vascular sheathing": ("O", ("视网膜血管白鞘",)),
    "arteriosclerosis": ("O", ("视网膜动脉硬化",)),
    "intraretinal hemorrhage": ("O", ("视网膜内出血",)),
    "intraretinal microvascular abnormality": ("O", ("视网膜内微血管异常",)),
    "retinal artery macroaneurysm": ("O", ("视网膜大动脉瘤",)),
    "idiopathic choroidal neovascularization": ("O", ("特发性脉络膜新生血管",)),
    "choroidal nevus": ("O", ("脉络膜痣",)),
    "old chorioretinopathy": ("O", ("陈旧性脉络膜视网膜病变",)),
    "old choroiditis": ("O", ("陈旧性脉络膜炎",)),
    "punctate inner choroidopathy": ("O", ("点状内层脉络膜病变",)),
}
"""Keyword -> its class and its Chinese phrases; other keywords are classified by their words."""

_BY_WORDS: Final = (
    ("macular degeneration", "A"),
    ("hypertensive", "H"),
    ("glaucoma", "G"),
    ("cataract", "C"),
    ("myopi", "M"),
    ("diabetic", "D"),
    ("proliferative retinopathy", "D"),
)
_SUSPECTED: Final = re.compile(r"^(suspected|suspicious)\s+")
_TABLES: Final = ("*Annotations*.xlsx", "data.xlsx", "full_df.csv")
_FOLDERS: Final = (
    "ODIR-5K_Training_Dataset",
    "ODIR-5K_Training_Images",
    "Training Images",
    "preprocessed_images",
)
_SIDES: Final = {"left": "Left", "right": "Right"}
_NAME, _EYE, _KEYWORDS = "name of the image", "eye", "keywords of the eye"
"""Columns that this module adds."""


def scan(source: str | os.PathLike[str]) -> Listing:
    """List ODIR-5K's training images.

    Args:
        source: the folder as downloaded.

    Raises:
        ValueError: one line: the layout is neither of the above, or the table has a fault.
    """
    root = Path(source)
    table = _find(root, _TABLES)
    folder = next((f for f in (_find(root, (name,)) for name in _FOLDERS) if f and _full(f)), None)
    if table is None or folder is None:
        lacks = " or ".join(_TABLES if table is None else _FOLDERS)
        raise ValueError(f"{root}: not ODIR-5K as distributed, it lacks {lacks}")
    rows = read_table(table)
    sides = [f"{side}-Diagnostic Keywords" for side in _SIDES.values()]
    require(
        table, rows, ("ID", "Patient Age", "Patient Sex", "Left-Fundus", "Right-Fundus", *sides)
    )
    items: list[Item] = []
    rejects: list[Reject] = []
    pictures = pairing.by_name(pairing.pictures_below(folder), rejects)
    for name, row, image in pairing.join(
        pictures, list(_eyes(rows)), _NAME, (_KEYWORDS,), table, rejects
    ):
        key, keywords = name.lower(), split_keywords(row[_KEYWORDS])
        if any(keyword in NO_FUNDUS for keyword in keywords):
            detail = f"{table.name}: {key} is {', '.join(keywords)}"
            rejects.append(Reject(key, "no fundus photograph", detail))
        elif not keywords:
            rejects.append(Reject(key, "invalid label", f"{table.name}: {key} has no keywords"))
        else:
            items.append(_item(key, row, keywords, image))
    return Listing(
        name="odir",
        classes=CLASSES,
        items=items,
        rejects=rejects,
        columns={
            "patient": str,
            "eye": str,
            "age": int,
            "sex": str,
            "keywords": str,
            **dict.fromkeys(LETTERS, int),
        },
        notes=_notes(items),
        description="Fundus photographs of both eyes with doctors' keywords in eight classes.",
        homepage="https://odir2019.grand-challenge.org",
        licence="ODIR-2019 challenge terms: research use",
    )


def split_keywords(text: str) -> list[str]:
    """Split an eye's keywords, in lower case, at commas of full or half width."""
    words = (" ".join(word.lower().split()) for word in re.split("[，,；;、]", text))
    return [word for word in dict.fromkeys(words) if word]


def class_of(keyword: str) -> str:
    """Return the letter of a keyword, "" for one that does not affect the class."""
    keyword = _SUSPECTED.sub("", keyword)
    if keyword in NOT_DECISIVE:
        return ""
    if keyword in KEYWORDS:
        return KEYWORDS[keyword][0]
    return next((letter for words, letter in _BY_WORDS if words in keyword), "O")


def phrases_of(keyword: str) -> tuple[str, ...]:
    """Return a keyword's Chinese phrases; those of its class for a rare keyword."""
    known = _SUSPECTED.sub("", keyword)
    if known in NOT_DECISIVE:
        return NOT_DECISIVE[known]
    phrases = (
        KEYWORDS[known][1] if known in KEYWORDS else CLASS_WORDS[LETTERS.index(class_of(known))]
    )
    return tuple(f"疑似{phrase}" for phrase in phrases) if known != keyword else phrases


def _item(key: str, row: Row, keywords: list[str], image: Blob) -> Item:
    letters = {class_of(keyword) for keyword in keywords} - {""}
    label = LETTERS.index(next(iter(letters))) if len(letters) == 1 else -1
    decisive = [keyword for keyword in keywords if class_of(keyword)]
    # Rare keywords of one class have the same phrases: use them once.
    findings = dict.fromkeys(phrases_of(keyword) for keyword in decisive or keywords)
    age = whole(row["Patient Age"], 120)
    values: tuple[Value, ...] = (
        _patient(row["ID"]),
        row[_EYE],
        -1 if age is None else age,
        row["Patient Sex"].lower(),
        ", ".join(keywords),
        *(int(letter in letters) for letter in LETTERS),
    )
    return Item(key, "train", image, caption(key, *findings), label, values)


def _patient(cell: str) -> str:
    number = whole(cell, 10**9)
    return cell if number is None else str(number)


def _eyes(rows: Iterable[Row]) -> Iterator[Row]:
    """Yield a row for each image, with the added columns; a row of `full_df.csv` has one image."""
    for row in rows:
        for eye, side in _SIDES.items():
            name = row[f"{side}-Fundus"]
            if name and row.get("filename", name) == name:
                keywords = row[f"{side}-Diagnostic Keywords"]
                yield {**row, _NAME: name, _EYE: eye, _KEYWORDS: keywords}


def _notes(items: list[Item]) -> list[str]:
    several = sum(sum(value for value in item.values[-8:] if value == 1) > 1 for item in items)
    none = sum(not any(item.values[-8:]) for item in items)
    return [
        "The captions are the doctors' keywords in Chinese; a rare keyword is its class.",
        f"{several} eyes have several classes and {none} have none: their label is -1.",
        "Both eyes of a patient are there: they are not independent.",
    ]


def _find(root: Path, patterns: tuple[str, ...]) -> Path | None:
    """Return the first match in `root` or up to three folders below."""
    for pattern in patterns:
        for depth in ("", "*/", "*/*/", "*/*/*/"):
            matches = [p for p in sorted(root.glob(depth + pattern)) if not p.name.startswith("~$")]
            if matches:
                return matches[0]
    return None


def _full(folder: Path) -> bool:
    return folder.is_dir() and bool(pairing.pictures_below(folder))
