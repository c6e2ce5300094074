"""Captions are true, short, varied, and contain every phrase that the prompt files ask for.

What a clause claims is read here with a table of its own, not with the grammar's.
"""

import json
import re
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from importlib import resources
from typing import Any

import numpy as np
import pytest

from vclip_jax.datasets.synthetic.annotation import annotate
from vclip_jax.datasets.synthetic.caption import LONGEST, USUAL, caption
from vclip_jax.datasets.synthetic.case import Case
from vclip_jax.datasets.synthetic.domains import DOMAINS, TRAINING_DOMAIN, sample_case

N = 6000
PROMPT_SETS = ("messidor", "idrid", "fives", "refuge")


@dataclass(frozen=True)
class Read:
    case: Case
    row: dict[str, Any]
    text: str
    clauses: tuple[str, ...]


def _read(case: Case) -> Read:
    row = annotate(case)
    text = str(row["diagnosticAdvice"])
    return Read(case, row, text, tuple(_clauses(text)))


def _clauses(text: str) -> list[str]:
    opening = r"^(右眼|左眼)?(眼底照|眼底彩照|所见|印象|诊断)?(显示)?(提示)?(疑似|考虑)?"
    parts = (re.sub(opening, "", part) for part in re.split("[，。：]", text))
    return [part for part in parts if part]


@pytest.fixture(scope="module")
def corpus() -> list[Read]:
    return [_read(sample_case(TRAINING_DOMAIN, 0, index)) for index in range(N)]


PRESENT: dict[str, Callable[[dict[str, Any]], object]] = {
    r"糖尿病性?视网膜病变|微血管|点片状出血|散在出血|串珠|大量出血|弥漫性出血": lambda row: (
        row["dr_grade"] > 0
    ),
    r"轻度(非增殖[期性])?糖尿病|糖尿病视网膜病变1级|糖尿病视网膜病变（轻度）|仅见": lambda row: (
        row["dr_grade"] == 1
    ),
    r"中度(非增殖[期性])?糖尿病|糖尿病视网膜病变2级|糖尿病视网膜病变（中度）": lambda row: (
        row["dr_grade"] == 2
    ),
    r"重度(非增殖[期性])?糖尿病|糖尿病视网膜病变3级|糖尿病视网膜病变（重度）": lambda row: (
        row["dr_grade"] == 3
    ),
    r"串珠|微血管异常|四象限大量|四象限弥漫": lambda row: row["dr_grade"] >= 3,
    r"^增殖[期性]|糖尿病视网膜病变4级|（增殖期）|视网膜前出血": lambda row: row["dr_grade"] == 4,
    r"^视(盘|网膜|盘表面)新生血管|激光|光凝": lambda row: row["dr_grade"] == 4,
    r"激光|光凝": lambda row: row["is_treated"],
    r"黄斑水肿|黄斑.*硬性渗出": lambda row: row["is_dme"],
    r"黄斑变性|黄斑.*玻璃膜疣|地图样萎缩|萎缩区|黄斑.*血管|视网膜下出血|黄斑区出血": (
        lambda row: row["is_amd"]
    ),
    r"青光眼|杯盘比(增|扩)大|盘沿(变窄|切迹)|神经纤维层|视盘线状出血|视盘边缘出血": (
        lambda row: row["is_gc"]
    ),
    r"静脉阻塞|迂曲|怒张|扇形出血|象限火焰状|弥漫性火焰状": lambda row: row["is_rvo"],
    r"高血压|动脉|交叉压": lambda row: row["is_htr"],
    r"病理性近视|后极部.*萎缩": lambda row: row["is_pm"],
    r"退行性近视|高度近视": lambda row: row["is_dm"],
    r"近视|萎缩弧|视盘倾斜": lambda row: row["is_pm"] or row["is_dm"],
    r"前膜|箔样|玻璃纸|皱褶": lambda row: row["is_em"],
    r"裂孔|圆孔": lambda row: row["is_mh"],
    r"脉络膜视网膜|瘢痕|炎性|模糊病灶|萎缩灶": lambda row: row["is_crp"],
    r"视神经异常|视神经萎缩|有髓|视盘.*(缺损|苍白|色淡|羽毛|玻璃膜疣|结节)": (
        lambda row: row["is_aon"]
    ),
    r"视盘水肿|边界模糊|边界不清": lambda row: row["is_aon"] or row["is_htr"],
    r"出血": lambda row: row["has_lesion"],
    r"豹纹状": lambda row: row["is_tessellated"],
    r"正常眼底|^眼底(大致)?正常": lambda row: not row["is_abnormal"],
    r"黄斑正常|黄斑中心凹反光可见": lambda row: not row["is_md"],
    r"视盘正常|视盘边界清": lambda row: not row["is_gc"] and not row["is_aon"],
    r"杯盘比正常|盘沿完整|生理性": lambda row: not row["is_gc"],
    r"血管走行正常|平伏": lambda row: not row["is_abnormal"],
}
"""What a clause without negation says must hold."""

ABSENT: dict[str, Callable[[dict[str, Any]], object]] = {
    r"糖尿病|微血管瘤": lambda row: row["dr_grade"] == 0,
    r"青光眼": lambda row: not row["is_gc"],
    r"出血": lambda row: not row["has_lesion"],
    r"渗出": lambda row: not row["is_dme"] and row["dr_grade"] < 2,
    r"玻璃膜疣": lambda row: not row["is_amd"],
    r"黄斑": lambda row: not row["is_md"],
    r"明显异常|眼底病变|网膜血管": lambda row: not row["is_abnormal"],
}
"""What a clause that says "none" or "nothing seen" must hold."""


def _contradictions(read: Read) -> list[str]:
    wrong = []
    for clause in read.clauses:
        negated = re.search("未见|^无", clause)
        table = ABSENT if negated else PRESENT
        understood = bool(re.search("^余|硬性渗出|棉绒斑|火焰状出血|图像|窥不清", clause))
        for pattern, holds in table.items():
            if re.search(pattern, clause):
                understood = True
                if not holds(read.row):
                    wrong.append(f"{clause}: {pattern}")
        ratio = re.fullmatch(r"杯盘比约(\d\.\d)", clause)
        if ratio and abs(float(ratio[1]) - read.case.cup_to_disc) > 0.0501:
            wrong.append(f"{clause}: the ratio is {read.case.cup_to_disc}")
        if not (understood or ratio):
            wrong.append(f"{clause}: this test cannot read it")
    return wrong


def test_no_caption_contradicts_its_columns(corpus: list[Read]) -> None:
    for read in corpus:
        assert not _contradictions(read), read.text


@pytest.mark.parametrize("domain", [name for name in DOMAINS if name != TRAINING_DOMAIN])
def test_external_captions_do_not_contradict_either(domain: str) -> None:
    for index in range(300):
        read = _read(sample_case(domain, 2, index))
        assert not _contradictions(read), read.text


def test_a_named_eye_is_the_photographed_one(corpus: list[Read]) -> None:
    other = {"left": "右眼", "right": "左眼"}
    assert all(other[read.row["eyes_side"]] not in read.text for read in corpus)
    assert 0.2 < np.mean(["眼：" in r.text or r.text[1] == "眼" for r in corpus]) < 0.7


def test_a_caption_is_a_function_of_the_case(corpus: list[Read]) -> None:
    for read in corpus[:100]:
        assert caption(read.case) == read.text
    assert caption(sample_case(TRAINING_DOMAIN, 1, 0)) != corpus[0].text
    assert corpus[0].text == "眼底大致正常，未见青光眼征象，盘沿完整。"


def test_captions_fit_the_context_and_end_in_a_full_stop(corpus: list[Read]) -> None:
    lengths = np.array([len(read.text) for read in corpus])
    assert lengths.max() <= LONGEST
    assert lengths.min() >= 4
    assert np.mean(lengths <= USUAL) > 0.95
    assert 20 < np.median(lengths) < USUAL
    assert all(read.text.endswith("。") and not read.text.endswith("。。") for read in corpus)
    assert not any(re.search("[，：]{2}|：，|，。|：。|[A-Za-z{}]", read.text) for read in corpus)


def test_captions_vary(corpus: list[Read]) -> None:
    counts = Counter(read.text for read in corpus)
    assert len(counts) > 0.8 * N
    assert counts.most_common(1)[0][1] < 0.01 * N
    assert any(read.text.startswith("疑似") for read in corpus)
    assert any("印象：" in read.text for read in corpus)


def test_no_clause_is_said_twice(corpus: list[Read]) -> None:
    for read in corpus:
        body = read.text.split("。")[0]  # a report's impression may repeat a sign
        said = _clauses(body)
        assert len(set(said)) == len(said), read.text


def test_every_disease_is_named_most_of_the_time(corpus: list[Read]) -> None:
    names = {
        "dr_grade": "糖尿病性?视网膜病变",
        "is_amd": "黄斑变性",
        "is_gc": "青光眼",
        "is_rvo": "静脉阻塞",
        "is_htr": "高血压",
        "is_pm": "病理性近视",
        "is_dm": "退行性近视|高度近视",
        "is_em": "前膜",
        "is_mh": "裂孔",
        "is_dme": "黄斑水肿",
    }
    for column, pattern in names.items():
        having = [read.text for read in corpus if read.row[column]]
        named = np.mean([bool(re.search(pattern, text)) for text in having])
        assert named > 0.75, (column, named)


def test_absence_is_said_often_enough_to_learn_it(corpus: list[Read]) -> None:
    healthy = [read for read in corpus if not read.row["is_abnormal"]]
    assert np.mean([bool(re.search("正常|未见明显异常", r.text)) for r in healthy]) > 0.7
    without = [read for read in corpus if not read.row["is_gc"]]
    assert np.mean([bool(re.search("杯盘比|[无见]青光眼", r.text)) for r in without]) > 0.4
    without = [read for read in corpus if not read.row["dr_grade"]]
    assert np.mean([bool(re.search("[无见]糖尿病视网膜病变", r.text)) for r in without]) > 0.25


def _prompts(name: str) -> dict[str, Any]:
    path = resources.files("vclip_jax.prompts").joinpath("zh", f"{name}.json")
    loaded: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def _is_class(name: str, row: dict[str, Any], index: int) -> bool:
    match name:
        case "messidor":
            return bool(min(row["dr_grade"], 3) == index)
        case "idrid":
            return bool(row["dr_grade"] == index)
        case "refuge":
            return bool(row["is_gc"] == index)
    columns = ("is_abnormal", "is_amd", "dr_grade", "is_gc")  # FIVES
    return bool(row[columns[index]]) != (index == 0)


@pytest.mark.parametrize("name", PROMPT_SETS)
def test_every_prompt_is_a_clause_of_training_captions_of_its_class(
    name: str, corpus: list[Read]
) -> None:
    said: dict[str, list[Read]] = {}
    for read in corpus:
        for clause in set(read.clauses):
            said.setdefault(clause, []).append(read)
    for index, entry in enumerate(_prompts(name)["classes"]):
        for phrase in entry["prompts"]:
            reads = said.get(phrase, [])
            assert len(reads) >= 5, f"{phrase} is hardly ever said"
            right = np.mean([_is_class(name, read.row, index) for read in reads])
            assert right > 0.5, f"only {right:.0%} of {phrase} are {entry['name']}"


@pytest.mark.parametrize("name", PROMPT_SETS)
def test_every_template_opens_training_captions(name: str, corpus: list[Read]) -> None:
    for template in _prompts(name)["templates"]:
        opening, closing = template.split("{}")
        fitting = [r for r in corpus if r.text.startswith(opening) and r.text.endswith(closing)]
        assert len(fitting) >= 50, template


@pytest.mark.parametrize("name", PROMPT_SETS)
def test_no_prompt_stands_for_two_classes(name: str) -> None:
    prompts = _prompts(name)
    assert prompts["dataset"] == name
    assert prompts["language"] == "zh"
    phrases = [phrase for entry in prompts["classes"] for phrase in entry["prompts"]]
    assert len(set(phrases)) == len(phrases)
    assert all(len(phrase) + 6 <= USUAL for phrase in phrases)


@pytest.mark.parametrize(
    ("name", "domain"),
    [("messidor", "messidor_like"), ("fives", "fives_like"), ("refuge", "refuge_like")],
)
def test_prompt_classes_are_the_domains_classes_in_order(name: str, domain: str) -> None:
    names = tuple(entry["name"] for entry in _prompts(name)["classes"])
    assert names == DOMAINS[domain].classes


def test_idrid_groups_are_referable_and_not() -> None:
    groups = {group["name"]: group["members"] for group in _prompts("idrid")["groups"]}
    assert groups == {
        "non-referable diabetic retinopathy": [0, 1],
        "referable diabetic retinopathy": [2, 3, 4],
    }
