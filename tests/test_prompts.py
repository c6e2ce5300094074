import json

import numpy as np
import pytest

from vclip_jax import prompts


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


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"template": ["{}"]}, "unknown key 'template', did you mean 'templates'"),
        ({"language": "drop"}, "'language' must be a non-empty string"),
        ({"templates": []}, "'templates' must be a non-empty list"),
        ({"templates": ["眼底"]}, "must hold {} exactly once"),
        ({"templates": ["{}", "{}"]}, "template is given twice"),
        ({"classes": "drop"}, "at least two classes"),
        ({"classes": [{"name": "a", "prompts": ["x"]}]}, "at least two classes"),
        ({"classes": [{"name": "a", "prompts": ["x"]}, {"prompts": ["y"]}]}, "class 1 has no name"),
        ({"classes": [{"name": "a", "prompts": ["x"]}] * 2}, "two classes are called 'a'"),
        (
            {"classes": [{"name": "a", "prompts": []}, {"name": "b", "prompts": ["y"]}]},
            "class 0 (a) needs at least one prompt",
        ),
        (
            {"classes": [{"name": "a", "prompts": ["x", " "]}, {"name": "b", "prompts": ["y"]}]},
            "none of them empty",
        ),
        (
            {"classes": [{"name": "a", "prompts": ["x", "x"]}, {"name": "b", "prompts": ["y"]}]},
            "has a prompt twice",
        ),
        ({"groups": [{"name": "g", "members": [0, 1, 2]}]}, "at least two groups"),
        (
            {"groups": [{"name": "g", "members": [0, 3]}, {"name": "h", "members": [1, 2]}]},
            "group 0 (g): member 3 is not a class index 0..2",
        ),
        (
            {"groups": [{"name": "g", "members": [0, 1]}, {"name": "h", "members": [1, 2]}]},
            "class 1 is already in group g",
        ),
        (
            {"groups": [{"name": "g", "members": [0]}, {"name": "h", "members": [1]}]},
            "class 2 (late) is in no group",
        ),
    ],
)
def test_a_bad_file_is_refused_in_one_line_that_says_where(tmp_path, changes, says):
    raw = {k: v for k, v in {**valid(), **changes}.items() if v != "drop"}
    path = tmp_path / "toy.json"
    path.write_text(json.dumps(raw), encoding="utf-8")
    with pytest.raises(ValueError) as error:  # noqa: PT011 - the text is checked below
        prompts.load(path)
    assert str(error.value).startswith(f"{path}: ")
    assert says in str(error.value)
    assert "\n" not in str(error.value)


def test_text_that_is_not_json_is_refused_with_its_line():
    with pytest.raises(ValueError, match=r"not valid JSON: .*line 1"):
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


def test_every_prompt_set_of_the_package_loads():
    for name in prompts.known():
        loaded = prompts.load(name)
        assert loaded.name == name
        assert loaded.language == name.split("/")[0]


def test_an_unknown_name_is_answered_with_the_nearest_known(monkeypatch):
    monkeypatch.setattr(prompts, "known", lambda: ("zh/fives", "zh/messidor"))
    with pytest.raises(ValueError, match=r"'zh/mesidor'; did you mean zh/messidor\?"):
        prompts.load("zh/mesidor")
    with pytest.raises(ValueError, match="known are zh/fives, zh/messidor"):
        prompts.load("qqqq")
    with pytest.raises(ValueError, match="no prompt set"):
        prompts.load("zh/../../secret")
