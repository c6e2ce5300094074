import json
import os

import numpy as np
import pytest

from vclip_jax import prompts
from vclip_jax.prompts import sets


def valid() -> dict:
    return {
        "dataset": "toy",
        "language": "zh",
        "templates": ["{}", "眼底彩照，{}。"],
        "classes": [
            {"name": "normal", "prompts": ["正常眼底", "未见明显异常"]},
            {"name": "early", "prompts": ["早期病变"]},
            {"name": "late", "prompts": ["晚期病变 {0} {x}"]},
        ],
        "groups": [{"name": "healthy", "members": [0]}, {"name": "ill", "members": [2, 1]}],
    }


def parse(**changes) -> prompts.PromptSet:
    raw = {**valid(), **changes}
    return prompts.parse(json.dumps({k: v for k, v in raw.items() if v != "drop"}), "toy")


def test_every_template_is_filled_with_every_phrase():
    toy = parse()
    assert toy.class_names == ("normal", "early", "late")
    assert toy.prompts[0] == (
        "正常眼底",
        "未见明显异常",
        "眼底彩照，正常眼底。",
        "眼底彩照，未见明显异常。",
    )
    assert toy.prompts[2][1] == "眼底彩照，晚期病变 {0} {x}。"  # braces in a phrase are just text
    assert hash(toy) == hash(parse())


def test_templates_and_groups_may_be_left_out():
    toy = parse(templates="drop", groups="drop")
    assert toy.prompts[1] == ("早期病变",)
    assert toy.groups == ()
    assert toy.label_names == toy.class_names
    probabilities = np.full((4, 3), 1 / 3, np.float32)
    assert toy.group(probabilities) is probabilities


def test_groups_sum_the_probabilities_of_their_members():
    toy = parse()
    assert toy.label_names == ("healthy", "ill")
    merged = toy.group(np.array([[0.5, 0.2, 0.3], [0.1, 0.9, 0.0]]))
    np.testing.assert_allclose(merged, [[0.5, 0.5], [0.1, 0.9]])
    with pytest.raises(ValueError, match=r"3 classes, got probabilities \[1, 2\]"):
        toy.group(np.ones((1, 2)))


def test_a_bad_file_is_refused_in_one_line_that_says_where(tmp_path):
    path = tmp_path / "toy.json"
    path.write_text(json.dumps({**valid(), "template": ["{}"]}), encoding="utf-8")
    with pytest.raises(ValueError, match="unknown key 'template'") as error:
        prompts.load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert "\n" not in str(error.value)


def test_text_that_is_not_json_is_refused_with_its_line():
    with pytest.raises(ValueError, match=r"is not JSON \(.*line 1"):
        prompts.parse("{", "toy")
    with pytest.raises(ValueError, match="expected an object"):
        prompts.parse("[]", "toy")


def test_a_file_is_loaded_by_its_path_and_named_after_it(tmp_path):
    path = tmp_path / "mine.json"
    path.write_text(json.dumps(valid(), ensure_ascii=False), encoding="utf-8")
    assert prompts.load(path) == prompts.load(str(path))
    assert prompts.load(path).name == "mine"
    with pytest.raises(FileNotFoundError):
        prompts.load(tmp_path / "none.json")


def test_source_templates_and_normalisation_are_kept():
    toy = parse(source="a book", renormalise=False)
    assert (toy.source, toy.renormalise) == ("a book", False)
    assert toy.templates == ("{}", "眼底彩照，{}。")
    assert parse().renormalise
    assert parse(templates="drop").templates == ("{}",)


LANGUAGES = {
    "zh": "zh",
    "zh_findings": "zh",
    "en_findings": "en",
    "zh_grammar": "zh",
    "en": "en",
    "flair": "en",
    "flair_ek": "en",
}
DATASETS = {"messidor", "fives", "refuge", "idrid", "odir", "papila", "rfmid", "synfundus"}


def test_every_prompt_set_of_the_package_loads_and_names_its_source():
    for name in prompts.known():
        loaded = prompts.load(name)
        assert loaded.name == name
        assert loaded.language == LANGUAGES[name.split("/")[0]]
        assert len(loaded.source) > 40


def test_there_is_a_set_of_each_kind_for_the_datasets_it_can_speak_of():
    kinds = {
        kind: {n.split("/")[1] for n in prompts.known() if n.startswith(f"{kind}/")}
        for kind in LANGUAGES
    }
    assert kinds["zh"] == kinds["en"] == kinds["flair"] == DATASETS
    assert kinds["zh_findings"] == kinds["en_findings"] == {"brset", "rfmid"}
    assert kinds["flair_ek"] == {"messidor", "fives", "refuge", "idrid"}
    assert kinds["zh_grammar"] == {"messidor", "fives", "refuge", "idrid", "synfundus"}


@pytest.mark.parametrize("name", prompts.known())
def test_classes_and_groups_are_those_of_the_chinese_set(name):
    folder, dataset = name.split("/")
    kind = "zh_findings" if folder.endswith("_findings") else "zh"
    loaded, chinese = prompts.load(name), prompts.load(f"{kind}/{dataset}")
    assert loaded.class_names == chinese.class_names
    assert loaded.groups == chinese.groups


def test_no_text_stands_for_two_classes_of_a_set():
    for name in prompts.known():
        texts = [text for own in prompts.load(name).prompts for text in own]
        assert len(set(texts)) == len(texts), name


def test_flairs_prompts_are_its_own():
    """From the reference's section 3.3."""
    naive, expert = prompts.load("flair/fives"), prompts.load("flair_ek/fives")
    assert naive.prompts[1] == ("A fundus photograph of age related macular degeneration",)
    assert [text.removeprefix("A fundus photograph of ") for text in expert.prompts[1]] == [
        "many small drusen",
        "few medium-sized drusen",
        "large drusen",
        "macular degeneration",
        "age related macular degeneration",
    ]
    grades = prompts.load("flair_ek/idrid").prompts
    assert [len(texts) for texts in grades] == [2, 2, 7, 4, 3]
    assert grades[0] == (
        "A fundus photograph of no diabetic retinopathy",
        "A fundus photograph of no microaneurysms",
    )
    for name in prompts.known():
        assert prompts.load(name).renormalise == (not name.startswith("flair"))


def test_the_grammars_set_is_what_the_grammar_says():
    from vclip_jax.datasets.synthetic import terms

    def phrases(name):
        loaded = prompts.load(name)
        return [own[: len(own) // len(loaded.templates)] for own in loaded.prompts]

    def bare(name):
        return [tuple(text.removesuffix("。") for text in own) for own in phrases(name)]

    grades = bare("zh_grammar/idrid")
    assert grades[0] == terms.NO_RETINOPATHY
    assert grades[1:] == [terms.RETINOPATHY[grade] for grade in (1, 2, 3, 4)]
    assert bare("zh_grammar/messidor")[3] == terms.RETINOPATHY[3] + terms.RETINOPATHY[4]
    assert bare("zh_grammar/refuge")[0] == terms.NO_GLAUCOMA
    healthy, macula, *_ = bare("zh_grammar/fives")
    assert healthy == terms.SOUND
    assert set(macula) == {name for names in terms.AMD.values() for name in names}


def test_an_unknown_name_is_answered_with_the_nearest_known(monkeypatch):
    monkeypatch.setattr(sets, "known", lambda: ("zh/fives", "zh/messidor"))
    with pytest.raises(ValueError, match=r"'zh/mesidor'; did you mean zh/messidor\?"):
        prompts.load("zh/mesidor")
    with pytest.raises(ValueError, match="known are zh/fives, zh/messidor"):
        prompts.load("qqqq")
    with pytest.raises(ValueError, match="no prompt set"):
        prompts.load("zh/../../secret")


def test_deep_json_and_pipes_are_refused(tmp_path):
    path = tmp_path / "deep.json"
    path.write_text('{"classes": ' + "[" * 100_000)
    with pytest.raises(ValueError, match=r"deep\.json is nested more than 64 levels deep"):
        prompts.load(str(path))
    os.mkfifo(tmp_path / "pipe.json")
    with pytest.raises(OSError, match="a pipe, a socket or a device"):
        prompts.load(str(tmp_path / "pipe.json"))


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "gb18030"])
def test_a_file_may_be_in_any_encoding_of_tables(tmp_path, encoding):
    path = tmp_path / "toy.json"
    path.write_bytes(json.dumps(valid(), ensure_ascii=False).encode(encoding))
    assert prompts.load(path).prompts == parse().prompts


def test_classes_are_matched_by_name_in_any_order(tmp_path):
    path = tmp_path / "toy.json"
    path.write_text(json.dumps(valid()), "utf-8")
    found = prompts.for_classes(str(path), ("late", "normal", "early"), "mine")
    assert found.class_names == ("normal", "early", "late")
    assert found.numbers(("late", "normal", "early")).tolist() == [2, 0, 1]
    assert found.numbers(()).tolist() == [0, 1, 2]
    with pytest.raises(ValueError, match="but the labels of mine are late, normal"):
        prompts.for_classes(str(path), ("late", "normal"), "mine")
    with pytest.raises(ValueError, match=r"Late, normal, early \(they differ in case or white"):
        prompts.for_classes(str(path), ("Late", "normal", "early"), "mine")
    with pytest.raises(ValueError, match="mine has names for 0 classes"):
        prompts.for_classes("labels", (), "mine")


def test_groups_are_ordered_where_they_part_ordered_classes():
    groups = [
        {"name": "a", "members": [0]},
        {"name": "b", "members": [1]},
        {"name": "c", "members": [2]},
    ]
    assert not parse(groups=groups, ordered=False).labels_ordered
    assert parse(groups=groups, ordered=True).labels_ordered
    assert not parse(groups=groups[::-1], ordered=True).labels_ordered
    assert parse().labels_ordered  # two groups


def test_labels_may_be_those_of_the_groups_where_that_is_asked_for():
    idrid = prompts.load("zh/idrid")
    assert prompts.labels_are_groups(idrid, idrid.label_names)
    assert not prompts.labels_are_groups(idrid, idrid.class_names)
    assert not prompts.labels_are_groups(
        prompts.load("zh/fives"), prompts.load("zh/fives").class_names
    )
    assert prompts.for_classes("zh/idrid", idrid.label_names, "d", groups=True) == idrid
    with pytest.raises(ValueError, match=r"is for the classes .* \(groups .*but the labels of d"):
        prompts.for_classes("zh/idrid", idrid.label_names, "d")
