"""Cameras: those of training cover what real ones do, and the far ones lie outside of them."""

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import pytest

from vclip_jax.datasets.synthetic.camera import Camera
from vclip_jax.datasets.synthetic.cameras import CAMERAS, sample_camera
from vclip_jax.datasets.synthetic.domains import DOMAINS, TRAINING_DOMAIN
from vclip_jax.datasets.synthetic.far_makes import FEWEST, far_camera


def numbers(camera: Camera) -> dict[str, float]:
    """Every trait of a camera as one number or a few, those of its flares summed up."""
    traits = asdict(camera)
    flares = traits.pop("flares")
    found = {"flares": float(len(flares))}

    def walk(name: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, inner in value.items():
                walk(f"{name}.{key}", inner)
        elif isinstance(value, tuple):
            for place, inner in enumerate(value):
                walk(f"{name}.{place}", inner)
        elif value is not None:
            found[name] = float(value)

    for key, value in traits.items():
        walk(key, value)
    red, green, blue = camera.tint
    found |= {"green/red": green / red, "blue/green": blue / green}
    found["file.jpeg"] = camera.file.jpeg or 100.0
    found["slope"] = math.hypot(*camera.light.slope)
    return found


@pytest.fixture(scope="module")
def training() -> list[Camera]:
    rng = np.random.default_rng(0)
    return [sample_camera(TRAINING_DOMAIN, rng) for _ in range(4000)]


def test_every_domain_has_cameras():
    assert set(CAMERAS) == set(DOMAINS)


@pytest.mark.parametrize("domain", CAMERAS)
def test_a_camera_is_a_function_of_the_generator(domain):
    first, again, other = (sample_camera(domain, np.random.default_rng(s)) for s in (1, 1, 2))
    assert first == again != other


@pytest.mark.parametrize("domain", CAMERAS)
def test_cameras_keep_to_what_their_fields_mean(domain):
    rng = np.random.default_rng(3)
    for _ in range(200):
        camera = sample_camera(domain, rng)
        assert camera.aspect >= 1
        assert all(0 < v <= 1.25 for v in camera.tint)
        assert all(v > 0 for v in camera.contrast)
        assert all(0 <= v < 0.3 for v in (*camera.black, *camera.surround))
        assert 0 < camera.shoulder < 1
        assert 0 <= camera.haze <= 1
        assert 0 <= camera.rim <= 1
        assert 0 <= camera.rim_spread <= 1
        assert camera.rim_width > 0
        assert camera.light.steepness > 0
        assert camera.light.cells >= 2
        assert 0.2 < camera.file.pixels <= 1
        assert camera.file.jpeg == 0 or 10 <= camera.file.jpeg <= 100
        assert all(flare.radius > 0 < flare.stretch for flare in camera.flares)


def test_training_cameras_cover_the_colours_of_real_photographs(training):
    # Least and greatest medians over the field in IDRiD's 413 training photographs: display red
    # .22 to .89, green over red .23 to .64, blue over green 0 to .85.
    found = [numbers(camera) for camera in training]
    for name, low, high in (("tint.0", 0.35, 0.89), ("green/red", 0.27, 0.64)):
        values = np.array([row[name] for row in found])
        assert (values < low).mean() > 0.002, name  # exposure and pigment darken further
        assert (values > high).mean() > 0.01, name
    ratio = np.array([row["blue/green"] for row in found])
    assert (ratio < 0.1).mean() > 0.02
    assert (ratio > 0.85).mean() > 0.02
    assert np.mean([camera.black[2] > 0.05 for camera in training]) > 0.1


RATES = {
    "a light that falls off steeply": (0.3, lambda c: c.light.vignette > 0.7),
    "a light that is off its centre": (0.2, lambda c: math.hypot(*c.light.centre) > 0.2),
    "a ring of light": (0.1, lambda c: abs(c.light.ring) > 0.02),
    "patches of colour": (0.2, lambda c: c.light.coloured > 0.03),
    "a ghost or a flare": (0.3, lambda c: c.flares),
    "a violet or blue flare": (
        0.15,
        lambda c: any(f.colour[2] > 2 * max(f.colour[1], 0) for f in c.flares),
    ),
    "a shadow in the middle": (0.02, lambda c: any(max(f.colour) < 0 for f in c.flares)),
    "stray light all around the rim": (0.04, lambda c: c.rim > 0 and c.rim_spread > 0.5),
    "dozens of specks": (0.1, lambda c: c.dirt.specks > 10),
    "rings": (0.05, lambda c: c.dirt.rings > 0),
    "bright specks": (0.05, lambda c: c.dirt.specks > 2 and c.dirt.bright > 0.5),
    "a hard JPEG": (0.06, lambda c: 0 < c.file.jpeg < 70),
    "colours with fewer pixels": (0.2, lambda c: c.file.jpeg and c.file.subsampled),
    "a small picture scaled up": (0.1, lambda c: c.file.pixels < 1),
    "halos of sharpening": (0.05, lambda c: c.sharpen > 0.5 and c.halo > 0.015),
    "blue that is cut off": (0.2, lambda c: c.black[2] > 0.02),
    "haze": (0.1, lambda c: c.haze > 0.1),
    "a landscape frame": (0.25, lambda c: c.aspect > 1.1),
}


@pytest.mark.parametrize("trait", RATES)
def test_what_real_cameras_do_is_common_in_training(trait, training):
    least, has = RATES[trait]
    assert np.mean([bool(has(camera)) for camera in training]) >= least


def test_every_far_camera_has_traits_that_no_training_camera_has(training):
    table = [numbers(camera) for camera in training]
    low = {name: min(row[name] for row in table if name in row) for name in table[0]}
    high = {name: max(row[name] for row in table if name in row) for name in table[0]}
    rng = np.random.default_rng(7)
    for _ in range(300):
        camera = far_camera(rng)
        found = numbers(camera)
        outside = {
            name.split(".")[0]
            for name, value in found.items()
            if name not in low or not low[name] <= value <= high[name]
        }
        assert len(outside) >= FEWEST, camera


def test_cameras_of_unknown_domains_are_refused():
    with pytest.raises(ValueError, match="no cameras for domain 'x'"):
        sample_camera("x", np.random.default_rng(0))
