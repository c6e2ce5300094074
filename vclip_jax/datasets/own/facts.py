"""Facts about patient, eye and photograph that a table gives besides caption and class."""

from collections.abc import Iterable, Mapping
from typing import Final

from vclip_jax.datasets.listing import PATIENT
from vclip_jax.datasets.own.columns import bare

EYE: Final = "eye"
_COLUMNS: Final = {
    "sex": "sex gender patientsex patientgender 性别 性別",
    "age": "age patientage ageyears ageyrs ageinyears agey ageatexam 年龄 年齡",
    "camera": "camera cameramodel cameratype cameraname device devicemodel imagingdevice "
    "manufacturer 相机 相機 相机型号 照相机 眼底相机 眼底相机型号 设备 設備 设备型号 机型",
    "site": "site hospital hospitalname clinic centre center institution institute 医院 醫院 "
    "医院名称 中心 院区 机构",
    "visit": "visit visitid visitno visitdate date examdt examdate examinationdate studydate "
    "acquisitiondate 检查日期 拍摄日期 就诊日期 检查时间 拍摄时间 就诊时间 就诊号",
    "quality": "quality imagequality qualityscore qualitygrade 质量 图像质量 图片质量 照片质量",
}
"""Name of a fact -> the plain names of its columns."""

FACTS: Final = (PATIENT, EYE, *_COLUMNS)
"""The facts that a record may hold, in the order of a dataset's columns."""


def fact_columns(columns: Iterable[str]) -> dict[str, str]:
    """Return the first column of each fact other than patient and eye.

    Examples:
        >>> from vclip_jax.datasets.own.facts import fact_columns
        >>> fact_columns(["Patient Sex", "年龄", "Image_Quality", "diagnosis"])
        {'sex': 'Patient Sex', 'age': '年龄', 'quality': 'Image_Quality'}
    """
    known = {bare(name): name for name in reversed(list(columns))}
    found = {
        fact: next((known[name] for name in names.split() if name in known), "")
        for fact, names in _COLUMNS.items()
    }
    return {fact: column for fact, column in found.items() if column}


def facts_of(cells: Mapping[str, str], columns: Mapping[str, str], side: str) -> dict[str, str]:
    """Return the known facts of a row, without the patient.

    Args:
        cells: the row.
        columns: fact -> its column, from `fact_columns`.
        side: "left", "right" or "".
    """
    facts = {EYE: side} | {fact: cells.get(column, "") for fact, column in columns.items()}
    return {fact: value for fact, value in facts.items() if value}
