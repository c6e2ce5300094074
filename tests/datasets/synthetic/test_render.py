"""The renderer: a function of the case, the same eye at any size, signs where they belong."""

from dataclasses import replace
from typing import Any, get_args

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from vclip_jax.datasets.synthetic import disc, render
from vclip_jax.datasets.synthetic.case import (
    Amd,
    Case,
    Chorioretinal,
    Dme,
    Glaucoma,
    Hypertensive,
    Myopia,
    OpticNerve,
    Quality,
    Retinopathy,
    Side,
    VeinOcclusion,
)
from vclip_jax.datasets.synthetic.domains import DOMAINS
from vclip_jax.datasets.synthetic.geometry import View, sample_eye, scatter
from vclip_jax.datasets.synthetic.marks import Canvas

PROLIFERATIVE = Retinopathy(4, 25, 40, 6, 6, 4, 0.7, 4, True, 2, True, 60)


def case(index: int = 0, **facts) -> Case:
    return Case(
        domain=facts.pop("domain", "refuge_like"), seed=1, index=index, eye="right", **facts
    )


def extent(mask: np.ndarray) -> int:
    rows = np.flatnonzero(mask.any(1))
    return rows[-1] - rows[0] + 1


@pytest.mark.parametrize("domain", DOMAINS)
def test_a_case_always_gives_the_same_picture(domain):
    sick = case(3, domain=domain, retinopathy=PROLIFERATIVE, dme=Dme(2, 4, True))
    np.testing.assert_array_equal(render.render(sick, 96), render.render(sick, 96))


def test_seed_index_and_domain_each_change_the_eye():
    first = render.render(case(), 64)
    for other in (replace(case(), seed=2), case(1), case(domain="fives_like")):
        assert np.abs(render.render(other, 64).astype(int) - first).mean() > 3


@settings(max_examples=15, deadline=None)
@given(
    height=st.integers(16, 150),
    width=st.one_of(st.none(), st.integers(16, 150)),
    index=st.integers(0, 10**6),
    domain=st.sampled_from(list(DOMAINS)),
    eye=st.sampled_from(["left", "right"]),
    centred_on=st.sampled_from(["macula", "disc", "between"]),
    blur=st.floats(0, 1),
    exposure=st.floats(-1, 1),
    occlusion=st.floats(0, 1),
)
def test_any_size_and_case_gives_uint8_rgb(
    height, width, index, domain, eye, centred_on, blur, exposure, occlusion
):
    eye = Case(
        domain,
        0,
        index,
        eye,
        centred_on,
        quality=Quality(blur, exposure, occlusion),
        retinopathy=PROLIFERATIVE,
    )
    drawing = render.draw(eye, height, width)
    assert drawing.image.dtype == np.uint8
    assert drawing.image.shape == (height, width or height, 3)
    for mask in drawing.masks.values():
        assert mask.shape == drawing.image.shape[:2]
        assert mask.dtype == bool


def test_sizes_below_sixteen_pixels_are_refused():
    with pytest.raises(ValueError, match="at least 16"):
        render.render(case(), 8)


@pytest.mark.parametrize("index", range(4))
def test_the_eye_is_the_same_at_every_resolution(index):
    sick = case(index, retinopathy=PROLIFERATIVE, amd=Amd("early", 10, 5))
    small = render.render(sick, 128).astype(float)
    large = cv2.resize(render.render(sick, 512), (128, 128), interpolation=cv2.INTER_AREA)
    smooth = [cv2.GaussianBlur(x.astype(float), (0, 0), 2.5) for x in (small, large)]
    correlation = np.corrcoef(smooth[0].ravel(), smooth[1].ravel())[0, 1]
    assert correlation > 0.99
    assert np.abs(smooth[0] - smooth[1]).mean() < 4


@pytest.mark.parametrize("ratio", [0.25, 0.4, 0.6, 0.8, 0.95])
@pytest.mark.parametrize("notch", [None, "inferior"])
def test_the_masks_have_the_vertical_cup_to_disc_ratio_of_the_case(ratio, notch):
    for index in range(4):
        glaucoma = Glaucoma(present=notch is not None, notch=notch)
        eye = case(index, centred_on="disc", cup_to_disc=ratio, glaucoma=glaucoma)
        masks = render.draw(eye, 512).masks
        assert extent(masks["cup"]) / extent(masks["disc"]) == pytest.approx(ratio, abs=0.03)


@pytest.mark.parametrize("ratio", [0.3, 0.5, 0.7, 0.9])
def test_the_pixels_have_the_vertical_cup_to_disc_ratio_of_the_case(ratio):
    sampled = sample_eye(case(centred_on="disc"))
    eye = replace(sampled, roll=0.0, disc_tilt=0.0)
    view = View(400, 400, np.array([200.0, 200.0]), 200.0, (0, 0, 400, 400), eye.disc, 0, False, 12)
    for index in (0, 1, 3, 7, 8):  # eyes without a scleral ring, which would hide the edge
        flat, cupped = Canvas(view), Canvas(view)
        disc.paint(flat, case(index, cup_to_disc=0.0), eye)
        disc.paint(cupped, case(index, cup_to_disc=ratio), eye)
        middle = np.average(np.arange(400), weights=cupped.masks["cup"].sum(0)).round().astype(int)
        rim = flat.log[1][:, 200]
        disc_height = (rim > np.median(rim[150:250]) / 2).sum()
        wall = (cupped.log[1] - flat.log[1])[:, middle]
        cup_height = (wall > wall.max() / 2).sum()
        assert cup_height / disc_height == pytest.approx(ratio, abs=0.05)


@pytest.mark.parametrize("domain", DOMAINS)
def test_the_disc_is_on_the_nose_side(domain):
    for index in range(3):
        for eye, nasal in zip(get_args(Side), (-1, 1), strict=True):
            drawing = render.draw(replace(case(index, domain=domain), eye=eye), 128)
            columns = np.flatnonzero(drawing.masks["disc"].any(0))
            assert nasal * (columns.mean() - 63.5) > 10


def test_the_left_eye_mirrors_the_right_eye():
    masks = []
    for eye in get_args(Side):
        view = View(
            256,
            256,
            np.array([128.0, 128.0]),
            128.0,
            (0, 0, 256, 256),
            np.zeros(2),
            0.0,
            eye == "left",
            45.0,
        )
        canvas = Canvas(view)
        render.paint(canvas, replace(case(retinopathy=PROLIFERATIVE), eye=eye), sample_eye(case()))
        masks.append(canvas.masks)
    for kind in ("disc", "veins", "blot_haemorrhage"):
        difference = np.abs(masks[0][kind] - masks[1][kind][:, ::-1]).mean()
        assert difference < 0.25 * masks[0][kind].mean()  # 2 where they do not meet


LESIONS: dict[str, dict[str, Any]] = {
    "microaneurysm": {"retinopathy": Retinopathy(1, microaneurysms=30)},
    "blot_haemorrhage": {"retinopathy": Retinopathy(2, blot_haemorrhages=30)},
    "flame_haemorrhage": {"retinopathy": Retinopathy(2, flame_haemorrhages=8)},
    "hard_exudate": {"retinopathy": Retinopathy(2, hard_exudates=5)},
    "cotton_wool_spot": {"retinopathy": Retinopathy(3, cotton_wool_spots=5)},
    "irma": {"retinopathy": Retinopathy(3, irma=5)},
    "neovascular_disc": {"retinopathy": Retinopathy(4, neovascular_disc=True)},
    "neovascular_elsewhere": {"retinopathy": Retinopathy(4, neovascular_elsewhere=2)},
    "preretinal_haemorrhage": {"retinopathy": Retinopathy(4, preretinal_haemorrhage=True)},
    "laser_scar": {"retinopathy": Retinopathy(4, laser_scars=100)},
    "drusen": {"amd": Amd("intermediate", 10, 10, 6)},
    "geographic_atrophy": {"amd": Amd("geographic_atrophy", atrophy_radius=0.8)},
    "subretinal_haemorrhage": {"amd": Amd("neovascular", macular_haemorrhage=0.8)},
    "membrane": {"amd": Amd("neovascular", membrane=0.7)},
    "nerve_fibre_defect": {"glaucoma": Glaucoma(True, None, "inferior")},
    "disc_haemorrhage": {"glaucoma": Glaucoma(True, disc_haemorrhage=True)},
    "crescent": {"myopia": Myopia(degenerative=True, crescent=0.6)},
    "myopic_atrophy": {"myopia": Myopia(pathologic=True, atrophy_patches=4)},
    "epiretinal_membrane": {"epiretinal_membrane": 0.8},
    "macular_hole": {"macular_hole": 0.4},
    "disc_drusen": {"optic_nerve": OpticNerve("drusen", 0.8)},
    "coloboma": {"optic_nerve": OpticNerve("coloboma", 0.8)},
    "myelinated_fibres": {"optic_nerve": OpticNerve("myelinated_fibres", 0.8)},
    "chorioretinal_scar": {"chorioretinal": Chorioretinal("scar", "inferotemporal", 2, 1.0)},
    "chorioretinal_inflammation": {"chorioretinal": Chorioretinal("inflammation", "macula", 2, 1)},
    "chorioretinal_atrophy": {"chorioretinal": Chorioretinal("atrophy", "superonasal", 2, 1.0)},
}
ANATOMY = {"field", "disc", "cup", "arteries", "veins"}
DARK = (
    "blot_haemorrhage",
    "flame_haemorrhage",
    "preretinal_haemorrhage",
    "macular_hole",
    "subretinal_haemorrhage",
    "disc_haemorrhage",
    "microaneurysm",
)
BRIGHT = (
    "hard_exudate",
    "cotton_wool_spot",
    "drusen",
    "geographic_atrophy",
    "myopic_atrophy",
    "chorioretinal_inflammation",
    "coloboma",
    "myelinated_fibres",
)


@pytest.mark.parametrize("kind", LESIONS)
def test_a_sign_is_drawn_within_the_field_whenever_the_case_has_it(kind):
    for index, domain in enumerate(DOMAINS):
        masks = render.draw(case(index, domain=domain, **LESIONS[kind]), 256).masks
        assert set(masks) - ANATOMY == {kind}
        assert masks[kind].sum() >= 4
        assert not (masks[kind] & ~masks["field"]).any()


@pytest.mark.parametrize("index", range(6))
@pytest.mark.parametrize("domain", DOMAINS)
def test_a_healthy_eye_has_no_lesion_pixels(domain, index):
    assert set(render.draw(case(index, domain=domain), 64).masks) == ANATOMY


@pytest.mark.parametrize("kind", DARK + BRIGHT)
def test_blood_is_darker_and_exudate_brighter_than_the_same_retina_without_it(kind):
    sick = render.draw(case(5, **LESIONS[kind]), 256)
    sound = render.render(case(5), 256)
    change = sick.image[..., 1].astype(float) - sound[..., 1]
    inside = change[sick.masks[kind]].mean()
    assert inside < -5 if kind in DARK else inside > 5


@pytest.mark.parametrize("eye", ["left", "right"])
def test_a_branch_occlusion_bleeds_into_its_quadrant(eye):
    occlusion = VeinOcclusion("branch", "superotemporal", 0.8)
    drawing = render.draw(replace(case(2, vein_occlusion=occlusion), eye=eye), 256)
    rows, columns = np.nonzero(drawing.masks["flame_haemorrhage"])
    disc_rows, disc_columns = np.nonzero(drawing.masks["disc"])
    assert rows.mean() < disc_rows.mean()  # superior is up
    temporal = columns.mean() - disc_columns.mean()
    assert (temporal < 0) == (eye == "right")


def test_hypertension_narrows_the_arteries_and_spares_the_veins():
    narrow = case(hypertensive=Hypertensive(2, arteriolar_narrowing=0.9))
    sick, sound = (render.draw(c, 512).masks for c in (narrow, case()))
    assert sick["arteries"].sum() < 0.85 * sound["arteries"].sum()
    assert sick["veins"].sum() == pytest.approx(sound["veins"].sum(), rel=0.03)


def test_severity_adds_lesion_area():
    areas = [
        render.draw(case(retinopathy=Retinopathy(3, blot_haemorrhages=n)), 256)
        .masks["blot_haemorrhage"]
        .sum()
        for n in (5, 30, 120)
    ]
    assert areas[0] < areas[1] < areas[2]


def test_blur_removes_detail_and_exposure_changes_brightness():
    def picture(**quality) -> np.ndarray:
        return render.render(case(quality=Quality(**quality)), 128).astype(float)

    detail = [np.abs(np.diff(picture(blur=b)[32:96, 32:96, 1], axis=0)).mean() for b in (0, 0.4, 1)]
    assert detail[0] > detail[1] > detail[2]
    means = [picture(exposure=e).mean() for e in (-0.8, 0, 0.8)]
    assert means[0] < means[1] < means[2]


def test_a_landscape_frame_loses_its_dark_sides_in_a_square_picture():
    square = render.draw(case(domain="messidor_like"), 120)
    wide = render.draw(case(domain="messidor_like"), 120, 180)
    for drawing in (square, wide):
        assert drawing.image[~drawing.masks["field"]].mean() < 20
    difference = wide.image[:, 30:150].astype(float) - square.image
    assert wide.masks["field"][:, 30:150].sum() == square.masks["field"].sum()
    assert np.abs(difference[square.masks["field"]]).mean() < 12  # but for noise and mottling


def test_some_training_cameras_pad_their_frame():
    tops = [
        np.flatnonzero(render.draw(case(i, domain="synfundus_like"), 64).masks["field"].any(1))[0]
        for i in range(40)
    ]
    assert 1 <= np.sum(np.array(tops) >= 5) <= 20


def test_scattered_points_are_visible_and_off_the_disc():
    eye = sample_eye(case())
    view = View(100, 100, np.array([50.0, 50.0]), 50.0, (0, 0, 100, 100), eye.gaze, 0.1, True, 45)
    points = scatter(np.random.default_rng(0), 300, view, eye, within=(2.0, 90.0))
    assert points.shape == (300, 2)
    assert view.visible(points, 1.4).all()
    assert (np.linalg.norm(points, axis=1) >= 2).all()
    assert (np.hypot(*((points - eye.disc) / eye.disc_radii).T) > 1).all()


def test_pixels_and_grid_are_inverse():
    eye = sample_eye(case())
    view = View(60, 90, np.array([45.0, 30.0]), 30.0, (0, 0, 90, 60), eye.gaze, 0.1, True, 45)
    rows, columns = np.indices((60, 90))
    pixels = view.pixels(np.moveaxis(view.grid(60, 90), 0, -1).astype(float))
    np.testing.assert_allclose(pixels, np.stack([columns, rows], -1), atol=1e-3)
