"""What the camera does to a picture, one trait at a time, of the same eye."""

from dataclasses import replace

import numpy as np
import pytest

from vclip_jax.datasets.synthetic import optics, render
from vclip_jax.datasets.synthetic.camera import Camera, Dirt, File, Flare, Light
from vclip_jax.datasets.synthetic.case import Case, Quality

PLAIN = Camera(
    aspect=1.0,
    padded=False,
    aperture=0.98,
    offset=(0.0, 0.0),
    notch=None,
    notch_shape=0,
    tint=(0.6, 0.32, 0.16),
    contrast=(1.0, 1.0, 1.0),
    black=(0.0, 0.0, 0.0),
    shoulder=0.8,
    light=Light(vignette=0.0, uneven=0.0),
    haze=0.0,
    haze_colour=(0.6, 0.5, 0.4),
    rim=0.0,
    rim_angle=0.0,
    rim_spread=0.0,
    rim_width=0.2,
    rim_colour=(0.6, 0.7, 0.8),
    flares=(),
    blur=0.0,
    aberration=0.0,
    sharpen=0.0,
    halo=0.004,
    noise=0.0,
    blotches=0.0,
    surround=(0.0, 0.0, 0.0),
    dirt=Dirt(),
    file=File(),
)
EYE = Case("fives_like", 0, 0, "right")
SIZE = 128
ROWS, COLUMNS = np.mgrid[-1 : 1 : SIZE * 1j, -1 : 1 : SIZE * 1j]
FAR = np.hypot(ROWS, COLUMNS) / PLAIN.aperture
FIELD = FAR < 0.95


@pytest.fixture
def photograph(monkeypatch):
    def photograph(size: int = SIZE, eye: Case = EYE, **traits) -> np.ndarray:
        """The eye as a plain camera with these traits sees it, float64 `[size, size, 3]`."""
        camera = replace(PLAIN, **traits)
        monkeypatch.setattr(render, "sample_camera", lambda *_: camera)
        return render.render(eye, size).astype(float)

    return photograph


TRAITS = {
    "light": {"light": Light(1.0, 4.0, (0.2, 0.1), (0.2, -0.1), 0.2, 0.5, 0.1, 0.1, 3)},
    "ghost": {"flares": (Flare((0.0, 0.1), 0.2, 1.0, False, (0.05, 0.02, 0.15)),)},
    "rim": {"rim": 0.7, "rim_spread": 1.0},
    "haze": {"haze": 0.3},
    "black": {"black": (0.02, 0.03, 0.1)},
    "sharpen": {"sharpen": 1.0, "halo": 0.02},
    "noise": {"noise": 0.02},
    "blotches": {"blotches": 0.02},
    "dirt": {"dirt": Dirt(20, 5, 2)},
    "jpeg": {"file": File(jpeg=40, subsampled=True)},
    "small": {"file": File(pixels=0.5)},
    "mix": {"mix": ((0.2, 0.6, 0.2),) * 3},
    "interlace": {"interlace": 0.02},
}


@pytest.mark.parametrize("trait", TRAITS)
def test_each_trait_changes_the_picture_and_always_in_the_same_way(trait, photograph):
    seen = photograph(**TRAITS[trait])
    assert np.abs(seen - photograph()).mean() > 0.2
    np.testing.assert_array_equal(seen, photograph(**TRAITS[trait]))


@pytest.mark.parametrize("trait", [t for t in TRAITS if t not in ("noise", "jpeg", "interlace")])
def test_a_trait_looks_alike_at_any_resolution(trait, photograph):
    small = photograph(**TRAITS[trait])
    large = photograph(512, **TRAITS[trait]).reshape(SIZE, 4, SIZE, 4, 3).mean((1, 3))
    coarse = [x.reshape(16, 8, 16, 8, 3).mean((1, 3)).ravel() for x in (small, large)]
    assert np.corrcoef(*coarse)[0, 1] > 0.985


def test_a_vignette_darkens_towards_the_rim_and_a_steep_one_there_alone(photograph):
    plain = photograph()[FIELD].sum()
    gentle, steep = (
        photograph(light=Light(vignette=1.0, steepness=power, uneven=0.0)) for power in (2, 10)
    )
    middle = FAR < 0.4
    assert np.abs(steep[middle] - photograph()[middle]).mean() < 1
    assert gentle[FIELD].sum() < steep[FIELD].sum() < plain


def test_light_falls_from_where_the_beam_is_centred(photograph):
    light = Light(vignette=1.0, steepness=2.0, centre=(0.4, 0.0), uneven=0.0)
    ratio = photograph(light=light)[FIELD].sum(1) / photograph()[FIELD].sum(1)
    assert np.corrcoef(ratio, COLUMNS[FIELD])[0, 1] > 0.5


def test_coloured_light_moves_the_channels_apart(photograph):
    def apart(**light) -> float:
        ratio = np.log(photograph(light=Light(vignette=0.0, **light)) + 1)
        plain = np.log(photograph(light=Light(vignette=0.0, uneven=0.0)) + 1)
        change = (ratio - plain)[FIELD]
        return float((change[:, 0] - change[:, 2]).std())

    assert apart(uneven=0.0, coloured=0.15) > 5 * apart(uneven=0.15, coloured=0.0, hue=(1, 1, 1))


@pytest.mark.parametrize("hollow", [False, True])
def test_a_flare_adds_its_colour_at_its_place(hollow, photograph):
    flare = Flare((0.4, -0.4), 0.25, 1.0, hollow, (0.05, 0.02, 0.2))
    added = photograph(flares=(flare,)) - photograph()
    far = np.hypot(COLUMNS / PLAIN.aperture - 0.4, ROWS / PLAIN.aperture + 0.4) / 0.25
    there = np.abs(far - 1) < 0.08 if hollow else far < 0.4
    red, green, blue = added[there].mean(0)
    assert blue > red > green > 0
    assert blue == pytest.approx(0.2 * 255, rel=0.25)
    assert np.abs(added[far > 4]).max() <= 1


def test_a_shadow_takes_light_away_and_never_below_black(photograph):
    shadow = Flare((0.0, 0.0), 0.3, 1.0, False, (-0.9, -0.9, -0.9))
    seen = photograph(flares=(shadow,))
    assert seen[FAR < 0.1].max() <= 1
    assert (seen <= photograph() + 1).all()


def test_the_rims_light_lies_all_around_or_on_one_side(photograph):
    near = (FAR > 0.9) & (FAR < 0.97)
    for spread, everywhere in ((1.0, True), (0.0, False)):
        added = photograph(rim=0.8, rim_spread=spread)[..., 2] - photograph()[..., 2]
        left, right = added[near & (COLUMNS < -0.5)].mean(), added[near & (COLUMNS > 0.5)].mean()
        assert right > 20
        assert (left > 20) == everywhere


def test_what_is_below_the_black_level_is_cut_off(photograph):
    cut, plain = photograph(black=(0.0, 0.0, 0.15)), photograph()
    assert (cut[..., 2][FIELD] == 0).mean() > 0.3
    np.testing.assert_array_equal(cut[..., :2], plain[..., :2])


@pytest.mark.parametrize(("bright", "sign"), [(0.0, -1), (1.0, 1)])
def test_dirt_darkens_or_brightens_a_few_pixels(bright, sign, photograph):
    dirt = Dirt(specks=30, rings=4, hairs=0, size=0.02, bright=bright)
    change = (photograph(dirt=dirt) - photograph())[..., 0]
    assert (sign * change >= -1).all()
    assert 10 < (sign * change > 4).sum() < 0.15 * SIZE**2


def test_more_specks_are_more_dirt(photograph):
    plain = photograph()
    change = [np.abs(photograph(dirt=Dirt(specks=n)) - plain).sum() for n in (3, 20, 90)]
    assert change[0] < change[1] < change[2]


def test_sharpening_overshoots_on_both_sides_of_an_edge(photograph):
    plain, sharp = photograph(), photograph(sharpen=1.5, halo=0.02)
    assert sharp[FIELD].max() >= plain[FIELD].max()
    assert sharp[FIELD].min() < plain[FIELD].min()
    edges = [np.abs(np.diff(x, axis=0)).mean() for x in (plain, sharp)]
    assert edges[1] > 1.3 * edges[0]


def test_a_small_picture_and_a_hard_jpeg_lose_detail(photograph):
    def detail(**file) -> float:
        return float(np.abs(np.diff(photograph(file=File(**file))[..., 1], axis=0)).mean())

    assert detail() > detail(pixels=0.7) > detail(pixels=0.4)
    wrong = [np.abs(photograph(file=File(jpeg=q)) - photograph()).mean() for q in (95, 70, 40)]
    assert wrong[0] < wrong[1] < wrong[2]


def test_subsampled_colours_are_blurred_and_brightness_is_not(photograph):
    luma = np.array([0.299, 0.587, 0.114])
    full, half = (photograph(file=File(jpeg=97, subsampled=s)) for s in (False, True))
    wrong = np.abs(half - full)[FIELD]
    assert np.abs((half - full) @ luma)[FIELD].mean() < 0.5 * wrong.mean()


def test_underexposure_leaves_a_retina_that_can_be_enhanced(photograph):
    dark = replace(EYE, quality=Quality(exposure=-1))
    seen = photograph(eye=dark, tint=(0.3, 0.15, 0.08))
    assert seen[FIELD].max(-1 if seen.ndim == 2 else 1).mean() < 40
    assert seen[FIELD].max(1).min() > 1


def test_highlights_are_compressed_from_the_shoulder_on():
    tones = np.linspace(0, 3, 301, dtype=np.float32)
    for shoulder in (0.65, 0.75, 0.98):
        red = optics._knee(np.repeat(tones[None, None], 3, 0), shoulder)[0, 0]
        np.testing.assert_allclose(red[tones <= shoulder], tones[tones <= shoulder], atol=1e-6)
        assert (np.diff(red) >= -1e-6).all()
        assert red.max() == pytest.approx(1.0)


@pytest.mark.parametrize("steepness", [1.0, 4.0, 12.0, 40.0])
def test_no_light_is_too_steep_for_a_picture(photograph, steepness):
    light = Light(vignette=-0.5, steepness=steepness, centre=(0.3, -0.3), uneven=0.0)
    lens = {"aberration": -0.01, "blur": 0.1, "sharpen": 2.0}
    picture = photograph(aperture=0.5, light=light, surround=(0.1, 0.1, 0.1), **lens)
    corners = picture[[0, 0, -1, -1], [0, -1, 0, -1]]
    assert np.abs(corners - 25.5).max() < 1
    assert picture[FAR < 0.3].std() > 1
