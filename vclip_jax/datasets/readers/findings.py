"""The Chinese phrases of diseases and signs that several datasets mark in columns of their own."""

from collections.abc import Iterable
from typing import Final

from vclip_jax.datasets.formats.tables import whole
from vclip_jax.datasets.listing import FINDINGS

NORMAL: Final = ("眼底未见明显异常", "正常眼底", "眼底正常", "未见明显异常")
"""Phrases for an eye in which nothing was found."""
ABNORMAL: Final = ("眼底异常", "可见眼底病变", "眼底有异常改变")
"""Phrases for an eye in which something was found that no column names."""

PHRASES: Final[dict[str, tuple[str, ...]]] = {
    "abnormal macula": ("黄斑异常", "黄斑区异常"),
    "abnormal optic disc": ("视盘异常",),
    "abnormal vessels": ("视网膜血管异常",),
    "age-related macular degeneration": ("年龄相关性黄斑变性", "老年性黄斑变性"),
    "anterior ischaemic optic neuropathy": ("前部缺血性视神经病变",),
    "asteroid hyalosis": ("星状玻璃体变性",),
    "branch retinal artery occlusion": ("视网膜分支动脉阻塞",),
    "branch retinal vein occlusion": ("视网膜分支静脉阻塞",),
    "central retinal artery occlusion": ("视网膜中央动脉阻塞",),
    "central retinal vein occlusion": ("视网膜中央静脉阻塞",),
    "central serous retinopathy": (
        "中心性浆液性视网膜病变",
        "中心性浆液性脉络膜视网膜病变",
    ),
    "chorioretinitis": ("脉络膜视网膜炎",),
    "choroidal folds": ("脉络膜皱褶",),
    "choroidal neovascularisation": ("脉络膜新生血管",),
    "collateral vessels": ("侧支血管", "可见侧支血管"),
    "coloboma": ("眼组织缺损",),
    "cotton wool spots": ("棉绒斑", "可见棉绒斑"),
    "cysticercosis": ("眼囊虫病",),
    "cystoid macular oedema": ("黄斑囊样水肿",),
    "diabetic retinopathy": ("糖尿病视网膜病变", "糖尿病性视网膜病变"),
    "drusen": ("玻璃膜疣", "可见玻璃膜疣"),
    "epiretinal membrane": ("视网膜前膜",),
    "exudation": ("视网膜渗出", "可见视网膜渗出"),
    "giant retinal tear": ("巨大视网膜裂孔",),
    "haemorrhage": ("视网膜出血", "可见视网膜出血"),
    "haemorrhagic pigment epithelial detachment": ("出血性色素上皮脱离",),
    "haemorrhagic retinopathy": ("出血性视网膜病变",),
    "hypertensive retinopathy": ("高血压性视网膜病变", "高血压视网膜病变"),
    "idiopathic intracranial hypertension": ("特发性颅内高压",),
    "increased cup-to-disc ratio": ("杯盘比增大", "视盘杯盘比增大"),
    "laser scars": ("视网膜激光斑", "可见激光斑"),
    "macroaneurysm": ("视网膜大动脉瘤",),
    "macular hole": ("黄斑裂孔",),
    "macular oedema": ("黄斑水肿", "可见黄斑水肿"),
    "macular scar": ("黄斑瘢痕", "黄斑区瘢痕"),
    "media haze": ("屈光间质混浊",),
    "microaneurysms": ("微血管瘤", "可见微血管瘤"),
    "myelinated nerve fibres": ("有髓神经纤维",),
    "myopia": ("近视性眼底改变", "近视眼底改变"),
    "naevus": ("眼底色素痣", "可见眼底色素痣"),
    "optic disc cupping": ("视杯扩大", "视盘凹陷扩大"),
    "optic disc oedema": ("视盘水肿",),
    "optic disc pallor": ("视盘色淡", "视盘颜色苍白"),
    "optic disc pit maculopathy": ("视盘小凹性黄斑病变",),
    "optic neuritis": ("视神经炎",),
    "optociliary shunt": ("视睫状分流血管",),
    "other diseases": ("其他眼底病变", "眼底其他异常"),
    "parafoveal telangiectasia": ("旁中心凹毛细血管扩张",),
    "plaque": ("可见斑块",),
    "post-traumatic choroidal rupture": ("外伤性脉络膜破裂",),
    "preretinal haemorrhage": ("视网膜前出血",),
    "retinal detachment": ("视网膜脱离",),
    "retinal holes": ("视网膜圆孔",),
    "retinal pigment epithelium changes": ("视网膜色素上皮改变",),
    "retinal tear": ("视网膜撕裂孔",),
    "retinal traction": ("视网膜牵拉", "视网膜牵引"),
    "retinitis": ("视网膜炎",),
    "retinitis pigmentosa": ("视网膜色素变性",),
    "scar": ("眼底瘢痕", "可见眼底瘢痕"),
    "silicone oil-filled eye": ("硅油填充眼",),
    "tessellation": ("豹纹状眼底",),
    "tilted disc": ("视盘倾斜", "倾斜视盘"),
    "tortuous vessels": ("视网膜血管迂曲", "血管迂曲"),
    "vascular occlusion": ("视网膜血管阻塞",),
    "vasculitis": ("视网膜血管炎",),
    "vitreous haemorrhage": ("玻璃体积血", "玻璃体出血"),
}
"""Name of a disease or sign -> phrasings of its presence."""


def columns(names: Iterable[str]) -> dict[str, type]:
    """Return the columns of findings for a listing."""
    return {f"{FINDINGS}/{name}": int for name in names}


def rating(cell: str) -> int:
    """Return 1 for a present finding, 0 for an absent one, -1 for any other cell."""
    number = whole(cell, 1)
    return -1 if number is None else number
