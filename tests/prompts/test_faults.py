"""The faults of a prompt set's JSON."""

import pytest

from vclip_jax.prompts.faults import plain_name, problems

VALID = {
    "dataset": "toy",
    "language": "zh",
    "templates": ["{}", "眼底彩照，{}。"],
    "classes": [
        {"name": "normal", "prompts": ["正常眼底", "未见明显异常"]},
        {"name": "early", "prompts": ["早期病变"]},
        {"name": "late", "prompts": ["晚期病变"]},
    ],
    "groups": [{"name": "healthy", "members": [0]}, {"name": "ill", "members": [2, 1]}],
}


def test_a_valid_set_has_no_fault():
    assert list(problems(VALID)) == []


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"template": ["{}"]}, "unknown key 'template', did you mean 'templates'"),
        ({"language": "drop"}, "'language' must be a non-empty string"),
        ({"source": " "}, "'source' must be a non-empty string"),
        ({"source": ["a book"]}, "'source' must be a non-empty string"),
        ({"renormalise": "no"}, "'renormalise' must be true or false, got 'no'"),
        ({"ordered": "yes"}, "'ordered' must be true or false, got 'yes'"),
        (
            {"classes": [{"name": "a", "prompts": ["\udce9"]}, {"name": "b", "prompts": ["y"]}]},
            "is not Unicode",
        ),
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
        (
            {"classes": [{"name": name, "prompts": [name]} for name in ("early", "late\u3000")]},
            "class 1 ('late\\u3000') has white space around its name",
        ),
        (
            {"classes": [{"name": name, "prompts": [name]} for name in ("no dr", "No  DR")]},
            "the classes 'no dr' and 'No  DR' differ in case or white space alone",
        ),
    ],
)
def test_the_first_fault_is_one_line_that_says_what_and_where(changes, says):
    raw = {key: value for key, value in {**VALID, **changes}.items() if value != "drop"}
    first = next(problems(raw))
    assert says in first
    assert "\n" not in first


@pytest.mark.parametrize("raw", [None, [], "text", 3])
def test_what_is_no_object_has_one_fault(raw):
    assert list(problems(raw)) == ["expected an object with classes and prompts"]


def test_names_are_alike_without_case_width_and_surplus_white_space():
    assert plain_name("  No\u3000 DR ") == plain_name("ＮＯ dr") == "no dr"
