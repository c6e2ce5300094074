"""Known names of the columns of photograph, caption, class and split.

Names match whatever their case, width, white space, underscores and hyphens. The meaning of an
unknown name is never guessed: options name such columns.
"""

import re
import unicodedata
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final

from vclip_jax.files.errors import few

_IMAGE: Final = """
    image imagepath imgpath filepath filename imagefile imagefilename imgfile imgfilename path
    file imagename imgname img images picture photo photograph fundus fundusimage fundusphoto
    fundusphotograph relativepath imageid imgid idcode imagecode fileid imageno
    imagenumber 图片 图像 影像 照片 图片路径 图像路径 影像路径 图片名 图像名 图片名称 图像名称
    影像名称 图片文件 图像文件 图片文件名 图像文件名 文件 文件名 文件名称 文件路径 路径 眼底图
    眼底图像 眼底图片 眼底照 眼底照片 眼底彩照 图片编号 图像编号 影像编号 图片id 图像id 圖片
    圖像 檔名 檔案名稱
"""
_WEAK_IMAGE: Final = "id name key uid code 编号 名称 序号 編號 名稱"
"""Names that mean a photograph only if the cells are names of photographs."""
_CAPTION: Final = """
    caption text description report title captions imagecaption sentence findings finding
    impression impressions prompt alttext txt 描述 图像描述 图片描述 文本 报告 报告内容 诊断报告
    检查报告 检查所见 影像所见 眼底所见 眼底描述 所见 印象 标题 说明 描述文本 報告
"""
_LABEL: Final = """
    label labels class classes classname classlabel classid classindex labelname labelid
    category categoryname categoryid target targets y diagnosis diagnoses disease level grade
    drgrade drlevel severity stage drstage retinopathygrade retinopathylevel
    diabeticretinopathygrade diabeticretinopathy groundtruth gt 标签 类别 分类 类 诊断 诊断结果
    疾病 疾病类别 疾病名称 病种 分级 等级 级别 分期 标注 標籤 類別 分類 診斷
"""
_SPLIT: Final = """
    split subset partition set usage phase datasplit traintest 划分 数据集划分 数据集 子集 集合
"""


@lru_cache(1 << 16)
def plain(name: str) -> str:
    """Return a column's name without case, width, white space and punctuation.

    "Image Path" and "image_path" become the same.
    """
    folded = unicodedata.normalize("NFKC", name).casefold()
    return re.sub(r"[\W_]+", "", folded) or folded


def bare(name: str) -> str:
    """Return `plain` of a name without what stands in brackets: "Age (yrs)", "年龄（岁）"."""
    return plain(re.sub(r"[(（\[【].*?[)）\]】]", " ", name)) or plain(name)


def same(one: str, other: str) -> bool:
    """Return whether two names of columns are one, whatever their case, width and white space."""
    return one == other or plain(one) == plain(other)


def image_columns(columns: Sequence[str]) -> list[str]:
    """List the columns whose names are those of photographs' paths or ids, the likeliest first."""
    return _known(columns, _IMAGE)


def image_column(columns: Sequence[str]) -> str:
    """Return the column that names the photographs, or "" if no name is known."""
    return next(iter(image_columns(columns)), "")


def weak_image_columns(columns: Sequence[str]) -> list[str]:
    """List the columns that name photographs only if their cells do ("id", "name")."""
    return _known(columns, _WEAK_IMAGE)


@dataclass(frozen=True)
class Wanted:
    """The columns that the user named; "" for those to be found by known names."""

    image: str = ""
    caption: str = ""
    label: str = ""
    split: str = ""
    group: str = ""
    """The column that names patients."""
    findings: tuple[str, ...] = ()
    """The columns of flags, a finding each."""

    @property
    def named(self) -> list[str]:
        """All columns that the user named."""
        one = (self.image, self.caption, self.label, self.split, self.group)
        return [name for name in (*one, *self.findings) if name]


def named(columns: Sequence[str], wanted: str, option: str) -> str:
    """Return the column that `wanted` names, as it is spelt in the table.

    Raises:
        ValueError: one line: there is none, or more than one.
    """
    matches = [name for name in columns if name == wanted] or [
        name for name in columns if plain(name) == plain(wanted)
    ]
    if len(matches) != 1:
        what = "no column" if not matches else "more than one column"
        raise ValueError(
            f"there is {what} {wanted!r} for {option}, only {few(map(repr, columns), 20)}"
        )
    return matches[0]


def caption_column(columns: Sequence[str]) -> str:
    """Return the column of captions, or ""."""
    return next(iter(_known(columns, _CAPTION)), "")


def label_column(columns: Sequence[str]) -> str:
    """Return the column of classes, or "".

    Raises:
        ValueError: one line: several columns are possible and none is called "label".
    """
    matches = _known(columns, _LABEL)
    if len(matches) > 1 and plain(matches[0]) == plain(matches[1]):
        raise ValueError(_several(matches))
    if len(matches) > 1 and plain(matches[0]) not in ("label", "labels", "标签", "標籤"):
        raise ValueError(_several(matches))
    return matches[0] if matches else ""


def said_columns(columns: Sequence[str]) -> list[str]:
    """List the columns with a usual name of captions or classes."""
    return [*_known(columns, _CAPTION), *_known(columns, _LABEL)]


def _several(columns: Sequence[str]) -> str:
    names = few(map(repr, columns))
    return f"the columns {names} may all be the class: name one with --label-column"


def split_columns(columns: Sequence[str]) -> list[str]:
    """List the columns that may hold splits, the likeliest first; only "split" itself is sure."""
    return _known(columns, _SPLIT)


def _known(columns: Sequence[str], names: str) -> list[str]:
    """List the columns with one of the names, in the order of the names."""
    rank = {name: index for index, name in enumerate(names.split())}
    matches = [column for column in columns if plain(column) in rank]
    return sorted(matches, key=lambda column: (rank[plain(column)], columns.index(column)))
