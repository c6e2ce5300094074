"""A case in Chinese, in the manner of SynFundus-1M's `diagnosticAdvice`.

The grammar is small: clauses joined by commas. Clauses come from three lists, each true of the
case: diagnoses (`_diagnoses`), signs (`_signs`) and normal or absent findings (`_normals`). A style
chooses and orders them: a terse "疑似青光眼。", a diagnosis with its signs, a report that ends with
an impression, or signs alone. Because a contrastive loss distinguishes pictures only as far as
their captions differ, absent findings are often mentioned, and grades have their clinical names.
Captions usually have at most `USUAL` characters (with [CLS] and [SEP] a context of 52 holds 50
WordPieces, and in Chinese each character is one); the few long reports have at most `LONGEST`,
diagnosis first, so that truncation costs least.
"""

from collections.abc import Sequence
from typing import Final

import numpy as np

from vclip_jax.datasets.synthetic import chance, signs, terms
from vclip_jax.datasets.synthetic.case import Case
from vclip_jax.datasets.synthetic.domains import DOMAINS

USUAL: Final = 48
LONGEST: Final = 80

_STREAM: Final = 0x43415054
"""Separates the caption's random numbers from the case's."""


def caption(case: Case) -> str:
    """Describe a case in Chinese, always in the same words for the same (domain, seed, index).

    Returns:
        One to `LONGEST` characters, nearly always at most `USUAL`, with a full stop at the end.
    """
    rng = chance.generator(_STREAM, DOMAINS[case.domain].stream, case.seed, case.index)
    normals = _normals(rng, case)
    if signs.diseased(case):
        names = _shuffled(rng, _diagnoses(rng, case))
        sign_clauses = _signs(rng, case)
    else:
        sound = _pick(rng, terms.SOUND)
        names = ["豹纹状眼底", "余未见明显异常"] if signs.tessellated(case) else [sound]
        sign_clauses = []
    if not case.quality.retina_readable and rng.random() < 0.7:
        normals.insert(0, _pick(rng, ("图像质量差", "图像模糊", "眼底窥不清")))
    eye = terms.PLACES[case.eye]
    style = rng.random()
    if style < 0.22:
        return _terse(rng, eye, names, sure=not signs.diseased(case))
    if 0.62 <= style < 0.82:
        opening = _pick(rng, (f"{eye}眼底照：", f"{eye}：", "眼底照：", "眼底彩照显示", "所见："))
        impression = f"。{_pick(rng, ('印象：', '诊断：', '提示'))}{'，'.join(names)}"
        described = [*sign_clauses[:4], *normals[: 1 if sign_clauses else 4]]
        if len(impression) < USUAL - 16:  # else the diagnoses leave no room: name them only
            return _join(opening, described, impression, USUAL)
    if style < 0.82:
        opening = _pick(rng, ("", "", "", eye, f"{eye}：", "眼底照：", "眼底彩照："))
        clauses = [*names, *sign_clauses[:4], *normals[: int(rng.integers(1, 4))]]
        return _join(opening, clauses, "", USUAL)
    if style < 0.97:
        opening = _pick(rng, ("", "", "", eye, "眼底照："))
        return _join(opening, [*sign_clauses[:5], *normals[: 1 if sign_clauses else 3]], "", USUAL)
    return _join(f"{eye}眼底彩照：", [*names, *sign_clauses, *normals], "", LONGEST)


def _terse(rng: np.random.Generator, eye: str, names: Sequence[str], sure: bool) -> str:
    doubt = "" if sure else _pick(rng, ("疑似", "疑似", "", "考虑"))
    opening = _pick(rng, ("", "", "", eye, f"{eye}："))
    return _join(opening, [doubt + name for name in names], "", USUAL)


def _join(opening: str, clauses: Sequence[str], ending: str, limit: int) -> str:
    """Join the first clauses that fit between the opening and the ending."""
    text, used = "", list[str]()
    for clause in clauses:
        if any(clause in other or other in clause for other in used):
            continue  # "火焰状出血" is part of "视网膜火焰状出血"
        longer = f"{text}，{clause}" if text else clause
        if len(opening) + len(longer) + len(ending) + 1 > limit:
            break
        text = longer
        used.append(clause)
    return f"{opening}{text}{ending}。"


def _diagnoses(rng: np.random.Generator, case: Case) -> list[str]:
    """List the names of the case's diseases, sometimes without the grade."""
    named: list[str] = []
    vague = rng.random() < 0.15
    if case.retinopathy.grade:
        named.append(_name(rng, terms.RETINOPATHY[0 if vague else case.retinopathy.grade]))
    if case.dme.grade:
        named.append(_name(rng, ("糖尿病黄斑水肿", "糖尿病性黄斑水肿")))
    if case.amd.stage != "none":
        named.append(_name(rng, terms.AMD["any" if rng.random() < 0.3 else case.amd.stage]))
    if case.glaucoma.present:
        named.append(_name(rng, ("青光眼", "青光眼性视神经病变", "青光眼性视神经改变")))
    if case.vein_occlusion.kind == "branch":
        place = terms.PLACES[case.vein_occlusion.quadrant]
        named.append(
            _name(rng, ("视网膜分支静脉阻塞", f"视网膜{place}分支静脉阻塞", "视网膜静脉阻塞"))
        )
    if case.vein_occlusion.kind == "central":
        named.append(_name(rng, ("视网膜中央静脉阻塞", "视网膜静脉阻塞")))
    if case.hypertensive.grade:
        named.append(_name(rng, terms.HYPERTENSIVE[0 if vague else case.hypertensive.grade]))
    if case.myopia.pathologic:
        named.append(_name(rng, ("病理性近视", "病理性近视眼底改变")))
    if case.myopia.degenerative:
        named.append(_name(rng, ("退行性近视", "高度近视", "高度近视眼底改变")))
    if case.epiretinal_membrane:
        named.append(_name(rng, ("黄斑前膜", "黄斑视网膜前膜")))
    if case.macular_hole:
        named.append("黄斑裂孔")
    if case.optic_nerve.kind != "none":
        names = terms.OPTIC_NERVE[case.optic_nerve.kind][0]
        named.append(_pick(rng, (*names, "视神经异常")))
    if case.chorioretinal.kind != "none":
        names = terms.CHORIORETINAL[case.chorioretinal.kind][0]
        named.append(_pick(rng, (*names, "脉络膜视网膜病变")))
    return named


def _signs(rng: np.random.Generator, case: Case) -> list[str]:
    """List the visible signs: for each disease its characteristic sign and some of the others."""
    groups = [
        _retinopathy_signs(rng, case),
        _macular_signs(rng, case),
        _disc_signs(rng, case),
        _vascular_signs(rng, case),
        _myopic_signs(rng, case),
    ]
    clauses: list[str] = []
    for group in groups:
        clauses += [s for place, s in enumerate(group) if place == 0 or rng.random() < 0.6]
    # Usually in the order of a systematic examination, sometimes in random order.
    return _shuffled(rng, clauses) if rng.random() < 0.4 else clauses


def _retinopathy_signs(rng: np.random.Generator, case: Case) -> list[str]:
    dr = case.retinopathy
    if dr.grade == 0:
        return []
    few = "少量" if dr.microaneurysms < 8 else "散在" if dr.microaneurysms < 20 else "多发"
    aneurysms = [f"{few}微血管瘤", f"后极部{few}微血管瘤", f"{few}红色点状微血管瘤"]
    if dr.grade == 1:
        only = [] if signs.bleeds(case) or signs.exudes(case) else ["仅见微血管瘤"]
        return [_pick(rng, [*aneurysms, *only, *only])]
    clauses = []
    if dr.neovascular_disc:
        clauses.append(_pick(rng, ("视盘新生血管", "视盘表面新生血管形成")))
    if dr.neovascular_elsewhere:
        clauses.append(_pick(rng, ("视网膜新生血管", "视网膜新生血管形成")))
    if dr.preretinal_haemorrhage:
        clauses.append(_pick(rng, ("视网膜前出血", "舟状视网膜前出血")))
    clauses = _shuffled(rng, clauses)
    if dr.laser_scars:
        clauses.append(_pick(rng, ("可见激光斑", "全视网膜光凝术后", "周边视网膜激光斑")))
    blots = dr.blot_haemorrhages
    rules = []  # clauses of the severe stage
    if blots > 80:
        rules.append(_pick(rng, ("四象限大量出血", "四象限弥漫性出血", "四象限大量点片状出血")))
    if dr.venous_beading:
        rules.append(_pick(rng, ("静脉串珠样改变", "视网膜静脉串珠样改变", "静脉呈串珠状")))
    if dr.irma:
        rules.append("视网膜内微血管异常")
    clauses += _shuffled(rng, rules)
    if blots <= 80:
        many = "少量" if blots < 8 else "散在" if blots < 20 else "多发" if blots < 40 else "较多"
        clauses.append(_pick(rng, (f"{many}点片状出血", f"视网膜{many}出血")))
    others = [_pick(rng, aneurysms)]
    if dr.hard_exudates:
        many = "少量" if dr.hard_exudates < 4 else "散在" if dr.hard_exudates < 8 else "多发"
        others.append(_pick(rng, ("硬性渗出", f"{many}硬性渗出", f"后极部{many}硬性渗出")))
    if dr.cotton_wool_spots:
        others.append(_pick(rng, ("棉绒斑", "可见棉绒斑", "散在棉绒斑")))
    if dr.flame_haemorrhages:
        others.append("火焰状出血")
    return clauses + _shuffled(rng, others)


def _macular_signs(rng: np.random.Generator, case: Case) -> list[str]:
    clauses = []
    amd = case.amd
    if amd.membrane:
        clauses.append(_pick(rng, ("黄斑区灰黄色新生血管膜", "黄斑区脉络膜新生血管")))
    if amd.macular_haemorrhage:
        clauses.append(_pick(rng, ("黄斑区视网膜下出血", "黄斑区出血")))
    if amd.atrophy_radius:
        clauses.append(_pick(rng, ("黄斑区地图样萎缩", "黄斑区边界清楚的萎缩区")))
    if amd.drusen_large:
        clauses.append(_pick(rng, ("黄斑区大玻璃膜疣", "黄斑区融合玻璃膜疣", "黄斑区玻璃膜疣")))
    elif amd.stage != "none":
        clauses.append(_pick(rng, ("黄斑区小玻璃膜疣", "黄斑区散在玻璃膜疣", "黄斑区玻璃膜疣")))
    if case.dme.circinate:
        clauses.append(_pick(rng, ("黄斑区环形硬性渗出", "黄斑区环状硬性渗出")))
    elif case.dme.grade == 2:
        clauses.append(_pick(rng, ("黄斑中心凹旁硬性渗出", "黄斑区硬性渗出")))
    elif case.dme.grade == 1:
        clauses.append(_pick(rng, ("黄斑区少量硬性渗出", "黄斑区硬性渗出")))
    if case.epiretinal_membrane > 0.65:
        clauses.append(_pick(rng, ("黄斑区视网膜皱褶", "黄斑区金箔样反光伴皱褶")))
    elif case.epiretinal_membrane:
        clauses.append(_pick(rng, ("黄斑区金箔样反光", "黄斑区玻璃纸样反光")))
    if case.macular_hole:
        clauses.append(_pick(rng, ("黄斑中心凹圆形裂孔", "黄斑中心凹暗红色圆孔")))
    if case.chorioretinal.kind != "none":
        sign = _pick(rng, terms.CHORIORETINAL[case.chorioretinal.kind][1])
        clauses.append(f"{terms.PLACES[case.chorioretinal.quadrant]}{sign}")
    return clauses


def _disc_signs(rng: np.random.Generator, case: Case) -> list[str]:
    clauses = []
    if case.glaucoma.present:
        clauses.append(_pick(rng, (_cup(case), _cup(case), "杯盘比增大", "杯盘比扩大")))
        if case.glaucoma.notch:
            where = terms.PLACES[case.glaucoma.notch]
            clauses.append(_pick(rng, (f"{where}盘沿变窄", f"{where}盘沿切迹", "盘沿变窄")))
        if case.glaucoma.nerve_fibre_defect:
            where = terms.PLACES[case.glaucoma.nerve_fibre_defect]
            defect = "视网膜神经纤维层缺损"
            clauses.append(_pick(rng, (f"颞{where[0]}方{defect}", defect, "神经纤维层楔形缺损")))
        if case.glaucoma.disc_haemorrhage:
            clauses.append(_pick(rng, ("视盘线状出血", "视盘边缘出血")))
    if case.optic_nerve.kind != "none":
        clauses.append(_pick(rng, terms.OPTIC_NERVE[case.optic_nerve.kind][1]))
    return clauses


def _vascular_signs(rng: np.random.Generator, case: Case) -> list[str]:
    clauses = []
    occlusion, pressure = case.vein_occlusion, case.hypertensive
    if occlusion.kind == "branch":
        where = terms.PLACES[occlusion.quadrant]
        clauses.append(_pick(rng, (f"{where}象限火焰状出血", f"{where}方扇形出血")))
        clauses.append(_pick(rng, (f"{where}支静脉迂曲扩张", "静脉迂曲扩张")))
    if occlusion.kind == "central":
        clauses.append(_pick(rng, ("四象限火焰状出血", "视网膜弥漫性火焰状出血")))
        clauses.append(_pick(rng, ("静脉迂曲扩张", "视网膜静脉怒张迂曲")))
    if pressure.disc_swelling:
        clauses.append(_pick(rng, ("视盘边界模糊", "视盘水肿")))
    if pressure.flame_haemorrhages:
        clauses.append(_pick(rng, ("火焰状出血", "视网膜火焰状出血")))
    if pressure.cotton_wool_spots:
        clauses.append(_pick(rng, ("棉绒斑", "可见棉绒斑")))
    if pressure.arteriovenous_nicking:
        clauses.append(_pick(rng, ("动静脉交叉压迫征", "动静脉交叉压迹")))
    if pressure.grade:
        clauses.append(_pick(rng, ("视网膜动脉变细", "动脉普遍变细")))
    return clauses


def _myopic_signs(rng: np.random.Generator, case: Case) -> list[str]:
    clauses = []
    myopia = case.myopia
    if myopia.atrophy_patches:
        clauses.append(_pick(rng, ("后极部斑片状萎缩", "后极部脉络膜萎缩斑")))
    if myopia.crescent >= 0.25:
        clauses.append(_pick(rng, ("视盘颞侧萎缩弧", "视盘旁近视弧")))
    if signs.tessellated(case):
        clauses.append("豹纹状眼底")
    if myopia.tilt >= 0.4:
        clauses.append("视盘倾斜")
    return clauses


def _normals(rng: np.random.Generator, case: Case) -> list[str]:
    """List true normal or absent findings, first those that distinguish the screening classes."""
    first, rest = [], []
    if case.retinopathy.grade == 0:
        first.append(_pick(rng, terms.NO_RETINOPATHY))
    if not case.glaucoma.present:
        first.append(_pick(rng, terms.NO_GLAUCOMA))
        cupless = case.optic_nerve.kind in ("coloboma", "swelling", "drusen")
        if not cupless and not case.hypertensive.disc_swelling:
            large = case.cup_to_disc >= 0.55
            first.append(_pick(rng, (_cup(case), "生理性大视杯" if large else "杯盘比正常")))
            rest.append("盘沿完整")
    if not signs.disc_diseased(case) and case.vein_occlusion.kind != "central":
        rest.append(_pick(rng, ("视盘边界清", "视盘正常", "视盘边界清楚")))
    if not signs.bleeds(case) and not signs.exudes(case):
        rest.append(_pick(rng, ("未见出血及渗出", "未见出血", "未见出血渗出")))
        if case.retinopathy.grade == 0:
            rest.append("未见微血管瘤")
    seen = signs.shows_macula(case)
    if seen and not signs.macula_diseased(case) and not signs.bleeds(case):
        rest.append(_pick(rng, ("黄斑中心凹反光可见", "黄斑区未见异常", "黄斑正常")))
        if case.amd.drusen_small == 0:
            rest.append("未见玻璃膜疣")
    if not signs.diseased(case):
        rest.append(_pick(rng, ("血管走行正常", "视网膜血管未见异常", "视网膜平伏")))
    if not first:
        return _shuffled(rng, rest)
    # The distinguishing ones usually come first, not always: both kinds of words are needed.
    mixed = _shuffled(rng, first) + _shuffled(rng, rest)
    return _shuffled(rng, mixed) if rng.random() < 0.3 else mixed


def _cup(case: Case) -> str:
    return f"杯盘比约{case.cup_to_disc:.1f}"


def _name(rng: np.random.Generator, names: Sequence[str]) -> str:
    """Return the usual name half of the time, else any name."""
    return names[0] if rng.random() < 0.5 else _pick(rng, names)


def _pick(rng: np.random.Generator, items: Sequence[str]) -> str:
    return items[int(rng.integers(len(items)))]


def _shuffled(rng: np.random.Generator, items: Sequence[str]) -> list[str]:
    return [items[place] for place in rng.permutation(len(items))]
