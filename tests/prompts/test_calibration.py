"""Calibrated answers: what is computed, what a file holds, what is refused."""

import dataclasses
import json

import numpy as np
import pytest
import scipy.special
from hypothesis import given
from hypothesis import strategies as st

from vclip_jax import prompts
from vclip_jax.prompts import calibration

FIVES = prompts.load("zh/fives")
IDRID = prompts.load("zh/idrid")


def entry(prompt_set=FIVES, model="a" * 64, **changes) -> calibration.Calibration:
    classes = prompt_set.class_names
    offsets = np.linspace(-1, 1, len(classes))
    made = calibration.Calibration(
        model=model,
        prompts=prompt_set.name,
        prompts_digest=calibration.digest_of(prompt_set),
        classes=classes,
        temperature=2.0,
        offsets=tuple(offsets.tolist()),
        method="labels",
        data="idrid:test",
        n=50,
        seed=3,
        figures={"nll": {"before": 1.5, "after": 1.2}},
    )
    return dataclasses.replace(made, **changes)


@given(st.integers(0, 1000), st.floats(0.1, 10))
def test_the_answer_is_the_softmax_of_logits_over_the_temperature_plus_offsets(seed, temperature):
    rng = np.random.default_rng(seed)
    logits, offsets = rng.normal(0, 5, (7, 4)), rng.normal(0, 2, 4)
    found = calibration.calibrated(scipy.special.softmax(logits, axis=1), temperature, offsets)
    expected = scipy.special.softmax(logits / temperature + offsets, axis=1)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    assert found.dtype == np.float64


def test_temperature_1_and_no_offsets_change_nothing_and_the_type_stays():
    given = scipy.special.softmax(np.random.default_rng(0).normal(0, 9, (5, 3)), axis=1)
    single = given.astype(np.float32)
    found = calibration.calibrated(single, 1.0, np.zeros(3))
    np.testing.assert_allclose(found, single, rtol=1e-6)
    assert found.dtype == np.float32


def test_what_float32_has_rounded_to_0_stays_a_number():
    sure = np.array([[1, 0, 0]], np.float32)
    found = calibration.calibrated(sure, 5.0, np.array([-100.0, 50.0, 50.0]))
    assert np.isfinite(found).all()
    assert found.sum() == pytest.approx(1)


def test_a_file_gives_back_what_was_saved_one_entry_for_each_prompt_set(tmp_path):
    path = tmp_path / "calibration.json"
    calibration.save(path, entry())
    calibration.save(path, entry(IDRID, prevalence={"no diabetic retinopathy": 0.6}))
    newer = entry(temperature=3.0)
    calibration.save(path, newer)
    found = calibration.load(path)
    assert [one.prompts for one in found] == ["zh/idrid", "zh/fives"]
    assert found[1] == newer
    assert found[0].prevalence == {"no diabetic retinopathy": 0.6}
    assert calibration.beside(tmp_path) == found
    assert calibration.matching(found, FIVES) == newer
    assert calibration.matching(found, prompts.load("en/fives")) is None
    assert calibration.beside(tmp_path / "elsewhere") == ()


def test_a_file_of_another_model_is_not_added_to(tmp_path):
    path = tmp_path / "calibration.json"
    calibration.save(path, entry())
    with pytest.raises(ValueError, match="holds the calibration of another model"):
        calibration.save(path, entry(IDRID, model="b" * 64))
    assert len(calibration.load(path)) == 1


def test_the_digest_is_of_the_words_not_of_their_name():
    renamed = dataclasses.replace(FIVES, name="mine", source="elsewhere")
    assert calibration.digest_of(renamed) == calibration.digest_of(FIVES)
    turned = dataclasses.replace(FIVES, renormalise=False)
    assert calibration.digest_of(turned) != calibration.digest_of(FIVES)


def test_another_model_and_other_words_are_refused_in_one_line():
    entry().check("a" * 64, FIVES)
    with pytest.raises(ValueError, match=r"the model a{12}, not for this one \(b{12}\): calibrate"):
        entry().check("b" * 64, FIVES)
    with pytest.raises(ValueError, match=r"other prompts \(zh/fives\) than these \(zh/idr"):
        entry().check("a" * 64, IDRID)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, 'it has no "format": 1'),
        ({"sets": []}, "holds no prompt set"),
        ({"sets": None}, "not iterable"),
        ({"sets": [7]}, "an entry is not an object"),
        ({"model": 7}, "model is not text"),
        ({"model": None}, "model is not text"),
        ({"classes": "ab"}, "classes are not a list of names"),
        ({"offsets": [0, 0, 0]}, "offsets are not a list with a number for each class"),
        ({"offsets": [0, 0, 0, "x"]}, "must be numbers"),
        ({"offsets": [0, 0, 0, 1e9]}, "an offset is out of range"),
        ({"offsets": [0, 0, 0, True]}, "must be numbers"),
        ({"temperature": 0}, "temperature 0 is out of range"),
        ({"temperature": -1.0}, "temperature -1 is out of range"),
        ({"n": -5}, "whole numbers"),
        ({"prevalence": [1]}, "prevalence and figures must be objects"),
        ({"prompts": 5}, "prompts is not text"),
    ],
)
def test_a_damaged_file_is_refused_in_one_line(tmp_path, change, message):
    path = tmp_path / "c.json"
    calibration.save(path, entry())
    content = json.loads(path.read_text())
    ((key, value),) = change.items()
    (content if key in content else content["sets"][0])[key] = value
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match=message) as caught:
        calibration.load(path)
    assert str(caught.value).startswith(f"{path} is not a calibration: ")
    assert "\n" not in str(caught.value)


def test_what_is_missing_in_a_file_is_named(tmp_path):
    path = tmp_path / "c.json"
    calibration.save(path, entry())
    content = json.loads(path.read_text())
    del content["sets"][0]["temperature"]
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="'temperature' is missing"):
        calibration.load(path)
    path.write_text("{")
    with pytest.raises(ValueError, match="is not JSON"):
        calibration.load(path)


def test_a_calibration_with_the_classes_in_another_order_is_refused():
    turned = entry(classes=FIVES.class_names[::-1])
    with pytest.raises(ValueError, match=r"is for the classes glaucoma, .* in this order, not for"):
        turned.check("a" * 64, FIVES)
    entry().check("a" * 64, FIVES)


def test_two_calibrations_of_one_prompt_set_in_a_file_are_refused(tmp_path):
    path = tmp_path / "calibration.json"
    calibration.save(path, entry())
    content = json.loads(path.read_text())
    content["sets"] *= 2
    path.write_text(json.dumps(content))
    with pytest.raises(ValueError, match="it holds two calibrations of zh/fives"):
        calibration.load(path)
