"""Healthy eyes differ: in the macula's darkness and hue, in sheen, in how the choroid shows."""

from dataclasses import replace

import cv2
import numpy as np
import pytest

from vclip_jax.datasets.synthetic import background, disc, macula, vessels
from vclip_jax.datasets.synthetic.case import Amd, Case, Glaucoma, Myopia
from vclip_jax.datasets.synthetic.geometry import View, length, sample_eye
from vclip_jax.datasets.synthetic.marks import Canvas

SIZE = 120
MICROMETRES = 290
"""In a degree on the retina."""


def case(index: int = 0, **facts) -> Case:
    return Case("synfundus_like", 1, index, "right", **facts)


def view(middle: tuple[float, float] = (0.0, 0.0), degrees: float = 48.0, size: int = SIZE) -> View:
    half = size / 2
    centre, box = np.full(2, half), (0, 0, size, size)
    return View(size, size, centre, half, box, np.array(middle), 0.0, False, degrees)


def painted(eye: Case, **facts) -> np.ndarray:
    """Log reflectances of the background, [3, SIZE, SIZE]."""
    canvas = Canvas(view())
    background.paint(canvas, replace(eye, **facts), sample_eye(eye))
    return canvas.log


X, Y = view().grid(SIZE, SIZE)
FOVEA = np.hypot(X, Y)
INNER, OUTER = FOVEA < 1, (FOVEA > 8) & (FOVEA < 10)


def darkness(log: np.ndarray) -> np.ndarray:
    """How much darker the fovea is than its surroundings, by channel."""
    return np.asarray(log[:, OUTER].mean(1) - log[:, INNER].mean(1))


def test_the_macula_is_dark_and_several_times_darker_in_some_healthy_eyes_than_in_others():
    depth = np.array([darkness(painted(case(index))) for index in range(60)])
    weak, usual, strong = np.quantile(depth[:, 1], (0.1, 0.5, 0.9))
    assert 0 < weak < usual < strong
    assert strong > 3 * weak
    assert np.mean(depth[:, 1] > 0) > 0.9


def test_the_maculas_hue_differs_between_healthy_eyes():
    depth = np.array([darkness(painted(case(index))) for index in range(60)])
    redness = depth[:, 1] - depth[:, 0]
    yellowness = depth[:, 2] - depth[:, 1]
    assert redness.std() > 0.05
    assert yellowness.std() > 0.08
    assert (redness > 0).mean() > 0.8  # it is brown to red, never green


def test_pigment_and_hue_vary_smoothly_over_a_healthy_fundus():
    fields = [cv2.GaussianBlur(painted(case(i)).transpose(1, 2, 0), (0, 0), 8) for i in range(40)]
    apart = [float((f[..., 0] - f[..., 1]).std()) for f in fields]
    assert np.quantile(apart, 0.9) > 2 * np.quantile(apart, 0.1)
    assert np.median(apart) > 0.04


def test_the_nerve_fibres_shine_in_the_young_along_the_arcades_and_not_on_the_fovea():
    gain = []
    for index in range(30):
        young, old = (painted(case(index), age=age) for age in (20, 80))
        gain.append(young - old)
    mean = np.mean(gain, 0)
    temporal = (X > -2) & (X < 9)
    arcade, raphe = temporal & (np.abs(Y) > 6) & (np.abs(Y) < 12), temporal & (np.abs(Y) < 1.5)
    assert mean[2][arcade].mean() > 0.03
    assert mean[2][arcade].mean() > 3 * mean[2][raphe].mean()
    assert mean[2][arcade].mean() > mean[0][arcade].mean() > 0  # whitish: blue gains most


def test_silk_lies_beside_the_vessels_of_the_young_alone():
    shape = view()
    found = {}
    for age in (20, 70):
        total = np.zeros((SIZE, SIZE), np.float32)
        for index in range(30):
            canvas, eye = Canvas(shape), case(index, age=age)
            arteries, veins, _ = vessels.draw(vessels.grow(eye, sample_eye(eye), 2.5), shape)
            background.paint_surface(canvas, np.maximum(arteries, veins), eye)
            total += canvas.log[1]
            if index == 0:
                beside = cv2.GaussianBlur(np.maximum(arteries, veins), (0, 0), 4)
        found[age] = total
    assert not found[70].any()
    assert found[20].max() > 0
    dense = beside > np.quantile(beside, 0.8)
    assert found[20][dense].mean() > 2 * found[20][beside < np.quantile(beside, 0.3)].mean()


def test_more_tessellation_shows_more_of_the_choroid():
    def texture(amount: float) -> float:
        red = [painted(case(i, myopia=Myopia(tessellation=amount)))[0] for i in range(8)]
        return float(np.mean([(r - cv2.GaussianBlur(r, (0, 0), 3)).std() for r in red]))

    assert texture(0.3) < texture(0.6) < texture(0.9)
    assert texture(0.9) > 1.5 * texture(0.3)


@pytest.mark.parametrize("index", range(4))
def test_small_drusen_are_below_63_micrometres(index):
    """Drupelets of normal ageing: Ferris et al., Ophthalmology 2013;120:844."""
    canvas = Canvas(view(degrees=14.0, size=840))
    eye = case(index, amd=Amd(drusen_small=8))
    macula.paint_deep(canvas, eye, sample_eye(eye))
    cover = (canvas.masks["drusen"] > 0.3 * canvas.masks["drusen"].max()).astype(np.uint8)
    _, _, stats, _ = cv2.connectedComponentsWithStats(cover)
    areas = stats[1:, cv2.CC_STAT_AREA]
    assert len(areas) >= 4
    # The median: two that touch count as one here.
    across = 2 * np.sqrt(np.median(areas) / np.pi) / (840 / 14.0) * MICROMETRES
    assert 20 < across < 63 * 1.1


def disc_of(eye: Case) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log reflectances [3, 200, 200] around the disc, and its masks of disc and cup."""
    layout = sample_eye(eye)
    canvas = Canvas(view(tuple(layout.disc), 12.0, 200))
    disc.paint(canvas, eye, layout)
    return canvas.log, canvas.masks["disc"] > 0.9, canvas.masks["cup"]


@pytest.mark.parametrize("present", [False, True])
def test_cups_are_steep_or_shallow_with_and_without_glaucoma(present):
    walls, depths = [], []
    for index in range(40):
        ratio = 0.7 if present else 0.5
        eye = case(index, cup_to_disc=ratio, glaucoma=Glaucoma(present=present))
        log, whole, cup = disc_of(eye)
        walls.append(((cup > 0.1) & (cup < 0.9) & whole).sum() / (cup > 0.5).sum())
        depths.append(log[1][whole & (cup > 0.95)].mean() - log[1][whole & (cup < 0.05)].mean())
    assert np.quantile(walls, 0.9) > 2.5 * np.quantile(walls, 0.1)
    assert np.quantile(depths, 0.9) > 2 * np.quantile(depths, 0.1)
    assert np.quantile(depths, 0.1) > 0


def test_some_healthy_discs_are_paler_than_some_glaucomatous_ones():
    def paleness(present: bool) -> np.ndarray:
        rims = []
        for index in range(40):
            log, whole, cup = disc_of(case(index, glaucoma=Glaucoma(present=present)))
            rims.append(log[2][whole & (cup < 0.05)].mean())
        return np.array(rims)

    healthy, sick = paleness(False), paleness(True)
    assert np.median(sick) > np.median(healthy)
    assert np.quantile(healthy, 0.9) > np.quantile(sick, 0.3)


def test_discs_with_large_physiological_cups_are_large():
    def height(ratio: float) -> float:
        eyes = [sample_eye(case(index, cup_to_disc=ratio)) for index in range(60)]
        return float(np.mean([eye.disc_diameter for eye in eyes]))

    assert height(0.3) == pytest.approx(6.1, abs=0.2)  # 1.8 mm
    assert height(0.65) > height(0.3) + 0.5


def test_the_disc_is_in_the_middle_of_a_picture_of_the_disc_alone():
    for index in range(20):
        eye = sample_eye(case(index, centred_on="disc", field_of_view=20.0))
        assert length(eye.disc - eye.gaze) < 4
        assert length(eye.gaze) > 10
