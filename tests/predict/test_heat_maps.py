"""Heat maps: what they add up to, and that they find what was planted, for every image tower."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import vclip_jax
from vclip_jax.predict import heat_maps

pytestmark = pytest.mark.slow  # minutes of compiling on 2 cores

SIDE = 64
TOWERS = {
    "resnet with attention pooling": {"vision_layers": (1, 1, 1, 1)},
    "resnet with mean pooling": {"vision_layers": (1, 1, 1, 1), "vision_pool": "mean"},
    "torchvision's resnet": {"vision_layers": (1, 1, 1, 1), "vision_kind": "imagenet"},
    "vision transformer": {
        "vision_layers": (3,),
        "vision_width": 64,
        "vision_patch_size": 8,
    },
    "vision transformer of one block": {
        "vision_layers": (1,),
        "vision_width": 64,
        "vision_patch_size": 8,
    },
}


@pytest.fixture(scope="module", params=TOWERS)
def model(request, tiny_clip, random_variables):
    """Structure and variables of a model with random weights."""
    sizes = {"image_size": SIDE, "vision_width": 8, "embed_dim": 32} | TOWERS[request.param]
    graphdef, params, batch_stats = random_variables(lambda rngs: tiny_clip(rngs, **sizes))
    return graphdef, (params, batch_stats)


def noise(n):
    """Dim pictures of little contrast, uint8 `[n, SIDE, SIDE, 3]`."""
    return np.random.default_rng(0).integers(60, 90, (n, SIDE, SIDE, 3), np.uint8)


def plant(images, seed):
    """The images with a bright patch each, and bool `[n, SIDE, SIDE]`, where it is or touches."""
    rng = np.random.default_rng(seed)
    planted, where = images.copy(), np.zeros(images.shape[:3], bool)
    for image, mask in zip(planted, where, strict=True):
        top, left = rng.integers(4, SIDE - 16, 2)
        image[top : top + 12, left : left + 12] = (250, 230, 40)
        mask[top - 4 : top + 16, left - 4 : left + 16] = True
    return planted, where


def test_the_heat_is_highest_where_something_was_planted(model):
    graphdef, variables = model
    clean = noise(12)
    planted, where = plant(clean, 1)
    encode = jax.jit(lambda images: nnx.merge(graphdef, *variables).encode_image(images))
    # What a text about the patch would be: the direction in which it moves the embedding.
    directions = encode(planted) - encode(clean)
    heat = np.asarray(heat_maps.make_heat_function(graphdef)(variables, planted, directions))
    assert heat.shape == (12, SIDE, SIDE)
    assert heat.dtype == np.float32
    highest = heat.reshape(12, -1).argmax(axis=1)
    hits = where.reshape(12, -1)[np.arange(12), highest].mean()
    assert where.mean() < 0.1
    assert hits >= 0.5


def test_a_layer_in_its_own_place_changes_nothing(model):
    graphdef, variables = model
    images = plant(noise(2), 2)[0].astype(np.float32)
    directions = np.random.default_rng(1).standard_normal((2, 32)).astype(np.float32)

    @jax.jit
    def scores(images):
        score, layers = heat_maps._score(graphdef, variables, images, directions, {})
        others = [
            heat_maps._score(graphdef, variables, 0 * images, directions, {place: layer})[0]
            for place, layer in layers.items()
        ]
        encoded = nnx.merge(graphdef, *variables).encode_image(images)
        return score, jnp.stack(others), jnp.sum(encoded * directions)

    score, others, expected = scores(images)
    np.testing.assert_allclose(score, expected, atol=1e-5)
    np.testing.assert_allclose(others, expected, atol=1e-5)


@pytest.mark.parametrize("shape", [(3, 4, 5, 6), (3, 1 + 16, 6)])
def test_places_add_up_to_the_difference_between_the_scores(shape, monkeypatch):
    monkeypatch.setattr(heat_maps, "STEPS", 200)
    rng = np.random.default_rng(0)
    features, baseline = rng.standard_normal((2, *shape)).astype(np.float32)
    weights = rng.standard_normal(shape[1:]).astype(np.float32)

    def score(x):
        return jnp.tanh(jnp.sum(x * x * weights, axis=tuple(range(1, x.ndim))) / 20)

    maps = heat_maps.integrated_gradients(lambda x: score(x).sum(), features, baseline)
    if len(shape) == 3:  # the class token has no place
        baseline[:, 0] = features[:, 0]
        assert maps.shape == (3, 4, 4)
    else:
        assert maps.shape == shape[:3]
    expected = score(features) - score(baseline)
    np.testing.assert_allclose(maps.mean(axis=(1, 2)), expected, atol=1e-4)


def test_smoothing_is_that_of_a_gaussian_and_keeps_the_sum():
    spike = np.zeros((1, 41, 41), np.float32)
    spike[0, 20, 18] = 5
    rows, columns = np.mgrid[:41, :41]
    expected = np.exp(-((rows - 20) ** 2 + (columns - 18) ** 2) / (2 * 3.0**2))
    smooth = np.asarray(heat_maps._smooth(jnp.asarray(spike), 3.0))[0]
    np.testing.assert_allclose(smooth, 5 * expected / expected.sum(), atol=5e-4)
    assert smooth.sum() == pytest.approx(5, rel=1e-4)


def test_a_class_is_compared_with_the_mean_of_the_others():
    classes = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    expected = classes[2] - (classes[0] + classes[1] + classes[3]) / 3
    np.testing.assert_allclose(heat_maps.class_directions(classes)[2], expected, atol=1e-6)
    with pytest.raises(ValueError, match="give at least two"):
        heat_maps.class_directions(classes[:1])


def test_an_explainer_does_not_depend_on_how_images_are_batched(portable_folder, monkeypatch):
    clip = vclip_jax.load(portable_folder)
    squares = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    chosen = [0, 1, 0, 1]
    heat = heat_maps.Explainer(clip, ["正常", "青光眼"])(squares, chosen)
    assert heat.shape == (4, 64, 64)
    monkeypatch.setattr(clip, "batch_size", 2)
    parts = heat_maps.Explainer(clip, ["正常", "青光眼"])(squares, chosen)
    np.testing.assert_allclose(parts, heat, rtol=0, atol=1e-4 * np.abs(heat).max())
    # Of two classes one is the other's contrary.
    contrary = heat_maps.Explainer(clip, ["青光眼", "正常"])(squares, chosen)
    np.testing.assert_allclose(contrary, -heat, rtol=0, atol=1e-4 * np.abs(heat).max())
    assert heat_maps.Explainer(clip, ["正常", "青光眼"])(squares[:0], []).shape == (0, 64, 64)


def test_an_overlay_colours_the_heat_and_dims_the_rest():
    image = np.full((80, 100, 3), (150, 80, 40), np.uint8)
    heat = np.full((8, 10), -1, np.float32)
    heat[1, 2] = 3
    shown = heat_maps.overlay(image, heat)
    assert shown.shape == image.shape
    assert shown.dtype == np.uint8
    np.testing.assert_array_equal(shown[60, 80], (120, 64, 32))
    _, green, blue = shown[15, 25].astype(int)
    assert green > 130
    assert green > blue
    # The same wherever the scale is, and nothing to see where nothing speaks for the class.
    np.testing.assert_array_equal(heat_maps.overlay(image, 7 * heat), shown)
    assert (heat_maps.overlay(image, -np.abs(heat)) == (120, 64, 32)).all()
    with pytest.raises(ValueError, match="not finite"):
        heat_maps.overlay(image, heat * np.nan)
