import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vclip_jax.report import plots

finite = st.floats(-1e12, 1e12, allow_nan=False)


def line(values, steps=None, label="a"):
    values = np.asarray(values, np.float64)
    return plots.Series(
        label, np.arange(len(values), dtype=float) if steps is None else steps, values
    )


@given(st.lists(finite, min_size=1, max_size=20), st.booleans(), st.booleans())
def test_every_point_lies_within_the_picture(values, from_zero, log):
    svg = str(plots.line_chart([line(values)], "Loss", from_zero=from_zero, log=log))
    assert "nan" not in svg
    assert "inf" not in svg
    for points in re.findall(r'points="([^"]*)"', svg):
        for pair in points.split():
            x, y = map(float, pair.split(","))
            assert 0 <= x <= 340
            assert 0 <= y <= 190


def test_a_single_point_stands_in_the_middle_over_its_step():
    svg = str(plots.line_chart([line([0.4], np.array([320.0]))], "Loss"))
    (at,) = re.findall(r'<circle class="c0" cx="([^"]*)"', svg)
    ticks = re.findall(r'<line class="tick" x1="([^"]*)"', svg)
    assert ticks == [at]
    assert float(at) == (46 + 332) / 2
    assert ">320</text>" in svg


def test_the_description_tells_first_last_least_and_greatest():
    svg = str(plots.line_chart([line([4, 1, 2], np.array([10.0, 20, 30]))], "Loss"))
    assert "a: 4 at step 10, 2 at step 30, least 1, greatest 4" in svg


def test_long_runs_are_drawn_as_mean_and_range():
    values = np.sin(np.arange(100_000)) + np.linspace(3, 0, 100_000)
    values[777] = 50.0
    steps, mean, low, high = plots.bucket(np.arange(100_000.0), values)
    assert len(steps) == len(mean) < 1000
    assert high.max() == 50.0  # a spike is never averaged away
    assert low.min() == values.min()
    assert mean.mean() == pytest.approx(values.mean())
    assert len(str(plots.line_chart([line(values)], "Loss"))) < 20_000


@given(st.floats(1e-9, 1e9), st.integers(2, 8))
def test_a_step_is_one_two_or_five_times_a_power_of_ten(span, count):
    step = plots.nice_step(span, count)
    assert span / step <= count * (1 + 1e-6)
    assert f"{step:e}"[0] in "125"
    assert step <= span / count * 2.6


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.25, "0.25"),
        (-1.5, "−1.5"),
        (4000, "4000"),
        (12_000, "12k"),
        (1.5e6, "1.5M"),
        (2e9, "2G"),
        (5e-4, "5e−4"),
        (1.25e-5, "1.25e−5"),
    ],
)
def test_numbers_are_short(value, text):
    assert plots.compact(value) == text


def test_labels_are_escaped():
    svg = plots.line_chart([line([1, 2], label="<b>&")], '"<i>')
    assert "<b>" not in svg
    assert "<i>" not in svg
    assert "&lt;b&gt;&amp;" in plots.legend(["<b>&"])


def test_a_reliability_diagram_shows_every_bin_that_has_images():
    bins = [{"n": 0, "confidence": None, "accuracy": None} for _ in range(15)]
    bins[7] = {"n": 3, "confidence": 0.5, "accuracy": 0.0}
    bins[14] = {"n": 90, "confidence": 1.0, "accuracy": 1.0}
    svg = str(plots.reliability(bins, "<b>"))
    assert svg.count("<circle") == 2
    assert svg.count("<rect") == 4
    assert "3 images, confidence 0.50, accuracy 0.00; 90 images" in svg
    assert "<b>" not in svg
    for name in ("x", "y", "width", "height", "cx", "cy"):
        for value in re.findall(rf' {name}="([-0-9.]+)"', svg):
            assert 0 <= float(value) <= 340
