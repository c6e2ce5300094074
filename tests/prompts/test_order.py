"""Which classes are taken for grades in rising order."""

import pytest

from vclip_jax import prompts
from vclip_jax.prompts.order import rises


@pytest.mark.parametrize(
    "names",
    [
        ("0", "1", "2", "3"),
        ("grade 1", "grade 2", "grade 10"),
        ("no DR", "mild", "moderate", "severe"),
        ("No_DR", "Mild", "Moderate", "Severe", "Proliferate_DR"),
        ("normal", "early AMD", "late AMD"),
        ("无", "轻度糖尿病视网膜病变", "中度糖尿病视网膜病变", "重度糖尿病视网膜病变"),
        ("ill", "well"),
    ],
)
def test_numbers_and_words_of_severity_that_rise_are_grades(names):
    assert rises(names)


@pytest.mark.parametrize(
    "names",
    [
        ("normal", "age-related macular degeneration", "diabetic retinopathy", "glaucoma"),
        ("no glaucoma", "glaucoma", "suspected glaucoma"),
        ("mild", "moderate", "no DR", "severe"),
        ("2", "1", "0"),
        ("normal", "mild myopia", "severe glaucoma"),
        ("healthy", "normal tension glaucoma", "late glaucoma"),
        ("1", "2", "other"),
    ],
)
def test_diseases_and_grades_in_another_order_are_not(names):
    assert not rises(names)


@pytest.mark.parametrize("name", prompts.known())
def test_the_packages_grades_and_nothing_else_have_an_order(name):
    folder, dataset = name.split("/")
    graded = dataset in ("messidor", "idrid", "refuge", "rfmid")
    ordered = graded and not folder.endswith("_findings")
    assert prompts.load(name).ordered == ordered == rises(prompts.load(name).class_names)
