"""Chinese captions for datasets that have only grades; the wording varies with the key."""

from typing import Final

from vclip_jax.datasets.listing import choose

RETINOPATHY: Final = (
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
"""Phrases for ICDR grades 0 to 4."""

RETINOPATHY_CLASSES: Final = (
    "no diabetic retinopathy",
    "mild diabetic retinopathy",
    "moderate diabetic retinopathy",
    "severe diabetic retinopathy",
    "proliferative diabetic retinopathy",
)
"""Names of the labels of ICDR grades 0 to 4."""

OEDEMA: Final = (
    ("未见糖尿病黄斑水肿", "黄斑区未见硬性渗出"),
    ("黄斑中心一个视盘直径以外可见硬性渗出", "轻度糖尿病黄斑水肿，硬性渗出远离黄斑中心"),
    ("糖尿病黄斑水肿，硬性渗出邻近黄斑中心", "黄斑中心一个视盘直径以内可见硬性渗出"),
)
"""Phrases for the risk of macular oedema as in MESSIDOR and IDRiD.

0 is no exudates, 1 outside, 2 within one disc diameter of the fovea.
"""

GLAUCOMA: Final = (
    ("未见青光眼", "无青光眼", "未见青光眼征象", "未见青光眼性改变"),
    ("青光眼", "青光眼性视神经病变", "青光眼性视神经改变"),
)
"""Phrases for absent and present glaucoma."""

GLAUCOMA_CLASSES: Final = ("no glaucoma", "glaucoma")
"""Names of the labels of absent and present glaucoma."""

UNKNOWN: Final = "眼底彩照。"
"""The caption of a photograph of which nothing is known."""

_TEMPLATES: Final = ("{}。", "眼底彩照：{}。", "眼底照：{}。")


def caption(key: str, *findings: tuple[str, ...]) -> str:
    """Return a sentence of findings, each given by its phrasings; the choice depends on `key`."""
    chosen = [choose(words, key, f"finding {i}") for i, words in enumerate(findings)]
    return choose(_TEMPLATES, key, "template").format("，".join(chosen))
