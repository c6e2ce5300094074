"""The Vision Transformer against NumPy in float64."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vclip_jax.models.rng import seeded
from vclip_jax.models.vit import VisionTransformer


@pytest.fixture(scope="module")
def tower(random_variables):
    def make(rngs):
        return VisionTransformer(
            layers=2, width=128, patch_size=8, image_size=32, embed_dim=6, rngs=rngs
        )

    return random_variables(make)


def layer_norm(x, p):
    mean, var = x.mean(-1, keepdims=True), x.var(-1, keepdims=True)
    return (x - mean) / np.sqrt(var + 1e-5) * p["scale"] + p["bias"]


def linear(x, p):
    return x @ p["kernel"] + p["bias"]


def reference(images: np.ndarray, params, heads: int = 2) -> np.ndarray:
    p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
    out = []
    for image in images.astype(np.float64):
        cut = [image[r : r + 8, c : c + 8] for r in range(0, 32, 8) for c in range(0, 32, 8)]
        x = np.stack([np.einsum("hwc,hwcd->d", part, p["conv1"]["kernel"]) for part in cut])
        x = np.concatenate([p["class_embedding"][None], x]) + p["positional_embedding"]
        x = layer_norm(x, p["ln_pre"])
        for _, block in sorted(p["transformer"]["resblocks"].items()):
            q, k, v = np.split(linear(layer_norm(x, block["ln_1"]), block["attn"]["in_proj"]), 3, 1)
            told = []
            for at in np.split(np.arange(x.shape[1]), heads):
                scores = q[:, at] @ k[:, at].T / np.sqrt(len(at))
                weights = np.exp(scores - scores.max(1, keepdims=True))
                told.append(weights / weights.sum(1, keepdims=True) @ v[:, at])
            x = x + linear(np.concatenate(told, 1), block["attn"]["out_proj"])
            hidden = linear(layer_norm(x, block["ln_2"]), block["mlp"]["c_fc"])
            x = x + linear(hidden / (1 + np.exp(-1.702 * hidden)), block["mlp"]["c_proj"])
        out.append(layer_norm(x[0], p["ln_post"]) @ p["proj"])
    return np.stack(out)


def test_the_tower_equals_a_plain_implementation(tower):
    graphdef, params, batch_stats = tower
    images = np.random.default_rng(0).standard_normal((3, 32, 32, 3)).astype(np.float32)
    got = nnx.merge(graphdef, params, batch_stats)(jnp.asarray(images), train=False)
    want = reference(images, params)
    np.testing.assert_allclose(got, want, rtol=1e-4, atol=1e-5 * np.abs(want).max())


def test_the_parameters_of_vit_b_16_are_86_million():
    def make():
        return VisionTransformer(
            layers=12, width=768, patch_size=16, image_size=224, embed_dim=512, rngs=seeded(0)
        )

    state = nnx.state(nnx.eval_shape(make), nnx.Param)
    assert sum(leaf.size for leaf in jax.tree.leaves(state)) == 86_192_640
