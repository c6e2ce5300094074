"""Prompts of findings: matched by name, each against its absence."""

import json

import numpy as np
import pytest

from vclip_jax import prompts
from vclip_jax.prompts.findings import for_findings


@pytest.fixture
def own(tmp_path):
    path = tmp_path / "mine.json"
    content = {
        "dataset": "mine",
        "language": "zh",
        "templates": ["{}", "眼底：{}"],
        "classes": [
            {"name": "normal", "prompts": ["正常"]},
            {"name": "DR", "prompts": ["糖网", "微血管瘤"]},
            {"name": "glaucoma", "prompts": ["青光眼"], "absent": ["未见青光眼"]},
        ],
    }
    path.write_text(json.dumps(content), "utf-8")
    return path


def test_a_finding_stands_against_all_other_classes_or_against_its_own_words(own):
    asked = for_findings(own, ["glaucoma", "DR"], "mine")
    assert asked.names == ("glaucoma", "DR")
    assert asked.absent == (("未见青光眼", "眼底：未见青光眼"), ())
    assert len(asked.prompts.class_names) == len(asked.prompts.prompts) == 4
    classes = np.random.default_rng(0).standard_normal((4, 6))
    normal, dr, glaucoma, no_glaucoma = classes
    np.testing.assert_allclose(
        asked.contrasts(classes), [glaucoma - no_glaucoma, dr - (normal + glaucoma) / 2]
    )


def test_words_for_absence_change_no_classification(own):
    assert prompts.load(own).class_names == ("normal", "DR", "glaucoma")
    assert prompts.load(own).prompts[2] == ("青光眼", "眼底：青光眼")


def test_labels_are_the_names_themselves():
    asked = for_findings("labels", ["青光眼", "糖网"], "mine")
    assert asked.prompts.prompts == (("青光眼",), ("糖网",))


@pytest.mark.parametrize(
    ("name", "findings", "match"),
    [
        ("zh/odir", [], "mine has no findings: rate each disease"),
        ("labels", ["DR"], "one finding, too few"),
        ("zh/odir", ["glaucoma", "a\nb"], r"zh/odir has no class 'a\\nb', a finding of mine"),
        ("zh/nothing", ["glaucoma"], "no prompt set is called"),
    ],
)
def test_what_cannot_be_asked_is_refused_in_one_line(name, findings, match):
    with pytest.raises(ValueError, match=match) as error:
        for_findings(name, findings, "mine")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("absent", [[], [""], "未见青光眼", [1]])
def test_empty_words_for_absence_are_refused(own, absent):
    content = json.loads(own.read_text("utf-8"))
    content["classes"][2]["absent"] = absent
    own.write_text(json.dumps(content), "utf-8")
    with pytest.raises(ValueError, match=r"class 2 \(glaucoma\): 'absent' must list"):
        prompts.load(own)


def test_the_packaged_sets_ask_the_findings_of_their_datasets():
    from vclip_jax.datasets.catalog import DATASETS

    for name, dataset in DATASETS.items():
        if dataset.findings:
            asked = for_findings(dataset.prompts, list(dataset.findings), name)
            assert asked.names == tuple(dataset.findings)


@pytest.mark.parametrize("language", ["zh", "en"])
@pytest.mark.parametrize("name", ["brset", "mbrset", "rfmid"])
def test_the_sets_of_findings_are_for_every_finding_of_their_dataset(name, language, tmp_path):
    from vclip_jax.datasets.catalog import DATASETS

    DATASETS[name].fixture(tmp_path)
    columns = DATASETS[name].scan(tmp_path).columns
    found = [column.partition("/")[2] for column in columns if column.startswith("findings/")]
    words = "brset" if name == "mbrset" else name
    asked = for_findings(f"{language}_findings/{words}", found, name)
    assert asked.names == tuple(found)
    assert asked.prompts.class_names[0] == "normal"
