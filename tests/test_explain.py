"""Heat maps: what they add up to, and that they find what was planted, for every image tower."""

import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

import vclip_jax
from vclip_jax import explain

SIDE = 128
TOWERS = {
    "resnet with attention pooling": {"vision_layers": (1, 1, 1, 1)},
    "resnet with mean pooling": {"vision_layers": (1, 1, 1, 1), "vision_pool": "mean"},
    "torchvision's resnet": {"vision_layers": (1, 1, 1, 1), "vision_kind": "imagenet"},
    "vision transformer": {
        "vision_layers": (3,), "vision_width": 64, "vision_patch_size": 16,
    },
    "vision transformer of one block": {
        "vision_layers": (1,), "vision_width": 64, "vision_patch_size": 16,
    },
}  # fmt: skip


@pytest.fixture(scope="module", params=TOWERS)
def model(request, tiny_clip, random_variables):
    """Structure and variables of a model with random weights."""
    sizes = {"image_size": SIDE, "vision_width": 16, "embed_dim": 32} | TOWERS[request.param]
    graphdef, params, batch_stats = random_variables(lambda rngs: tiny_clip(rngs, **sizes))
    return graphdef, (params, batch_stats)


def noise(n):
    """Dim pictures of little contrast, uint8 `[n, SIDE, SIDE, 3]`."""
    return np.random.default_rng(0).integers(60, 90, (n, SIDE, SIDE, 3), np.uint8)


def plant(images, seed):
    """The images with a bright patch each, and bool `[n, SIDE, SIDE]`, where it is."""
    rng = np.random.default_rng(seed)
    planted, where = images.copy(), np.zeros(images.shape[:3], bool)
    for image, mask in zip(planted, where, strict=True):
        top, left = rng.integers(8, SIDE - 32, 2)
        image[top : top + 24, left : left + 24] = (250, 230, 40)
        mask[top : top + 24, left : left + 24] = True
    return planted, where


def test_the_heat_is_highest_where_something_was_planted(model):
    graphdef, variables = model
    clean = noise(12)
    planted, where = plant(clean, 1)
    encode = nnx.jit(lambda images: nnx.merge(graphdef, *variables).encode_image(images))
    # What a text about the patch would be: the direction in which it moves the embedding.
    directions = encode(planted) - encode(clean)
    heat = np.asarray(explain.make_heat_function(graphdef)(variables, planted, directions))
    assert heat.shape == (12, SIDE, SIDE)
    assert heat.dtype == np.float32
    highest = heat.reshape(12, -1).argmax(axis=1)
    near = np.stack([np.kron(mask[::8, ::8], np.ones((8, 8), bool)) | mask for mask in where])
    hits = near.reshape(12, -1)[np.arange(12), highest].mean()
    chance = near.mean()
    assert chance < 0.06
    assert hits >= 0.75


def test_places_add_up_to_what_the_layer_adds(model, monkeypatch):
    monkeypatch.setattr(explain, "STEPS", 64)
    graphdef, variables = model
    images, _ = plant(noise(3), 2)
    directions = np.random.default_rng(1).standard_normal((3, 32)).astype(np.float32)
    for place in range(len(explain._places(nnx.merge(graphdef, *variables).visual))):
        maps = explain._integrated(graphdef, variables, images, directions, place)
        tower = nnx.merge(graphdef, *variables)
        blocks, index = explain._places(tower.visual)[place]
        block = blocks[index]

        def level(x, block=block, **options):
            given = block(x, **options)
            if given.ndim == 3:
                patches = jnp.broadcast_to(given[:, 1:].mean(1, keepdims=True), given[:, 1:].shape)
                return jnp.concatenate([given[:, :1], patches], axis=1)
            return jnp.broadcast_to(given.mean((1, 2), keepdims=True), given.shape)

        whole = tower.encode_image(images)
        blocks[index] = explain._Tap(level)
        expected = ((whole - tower.encode_image(images)) * directions).sum(axis=1)
        np.testing.assert_allclose(np.mean(maps, axis=(1, 2)), expected, rtol=0.02, atol=2e-4)


def test_smoothing_is_that_of_a_gaussian_and_keeps_the_sum():
    spike = np.zeros((1, 41, 41), np.float32)
    spike[0, 20, 18] = 5
    rows, columns = np.mgrid[:41, :41]
    expected = np.exp(-((rows - 20) ** 2 + (columns - 18) ** 2) / (2 * 3.0**2))
    smooth = np.asarray(explain._smooth(jnp.asarray(spike), 3.0))[0]
    np.testing.assert_allclose(smooth, 5 * expected / expected.sum(), atol=5e-4)
    assert smooth.sum() == pytest.approx(5, rel=1e-4)


def test_a_class_is_compared_with_the_mean_of_the_others():
    classes = np.random.default_rng(0).standard_normal((4, 6)).astype(np.float32)
    expected = classes[2] - (classes[0] + classes[1] + classes[3]) / 3
    np.testing.assert_allclose(explain.class_directions(classes)[2], expected, atol=1e-6)
    with pytest.raises(ValueError, match="give at least two"):
        explain.class_directions(classes[:1])


def test_an_explainer_does_not_depend_on_how_images_are_batched(portable_folder, monkeypatch):
    clip = vclip_jax.load(portable_folder)
    squares = np.random.default_rng(0).integers(0, 256, (5, 64, 64, 3), np.uint8)
    chosen = [0, 1, 0, 1, 1]
    heat = explain.Explainer(clip, ["正常", "青光眼"])(squares, chosen)
    assert heat.shape == (5, 64, 64)
    monkeypatch.setattr(clip, "batch_size", 2)
    parts = explain.Explainer(clip, ["正常", "青光眼"])(squares, chosen)
    np.testing.assert_allclose(parts, heat, rtol=0, atol=1e-4 * np.abs(heat).max())
    # Of two classes one is the other's contrary.
    contrary = explain.Explainer(clip, ["青光眼", "正常"])(squares, chosen)
    np.testing.assert_allclose(contrary, -heat, rtol=0, atol=1e-4 * np.abs(heat).max())
    assert explain.Explainer(clip, ["正常", "青光眼"])(squares[:0], []).shape == (0, 64, 64)


def test_an_overlay_colours_the_heat_and_dims_the_rest():
    image = np.full((80, 100, 3), (150, 80, 40), np.uint8)
    heat = np.full((8, 10), -1, np.float32)
    heat[1, 2] = 3
    shown = explain.overlay(image, heat)
    assert shown.shape == image.shape
    assert shown.dtype == np.uint8
    np.testing.assert_array_equal(shown[60, 80], (120, 64, 32))
    _, green, blue = shown[15, 25].astype(int)
    assert green > 130
    assert green > blue
    # The same wherever the scale is, and nothing to see where nothing speaks for the class.
    np.testing.assert_array_equal(explain.overlay(image, 7 * heat), shown)
    assert (explain.overlay(image, -np.abs(heat)) == (120, 64, 32)).all()
    with pytest.raises(ValueError, match="not finite"):
        explain.overlay(image, heat * np.nan)
