"""Low-rank parts beside layers: nothing at the start, and the same model once they are merged."""

import jax
import numpy as np
import pytest
from flax import nnx

from vclip_jax.models.build import split_model
from vclip_jax.models.low_rank import add_low_rank, merged
from vclip_jax.models.rng import seeded
from vclip_jax.train import parts

VIT = {"vision_layers": (2,), "vision_width": 64, "vision_patch_size": 16}
IMAGENET = {"vision_kind": "imagenet", "vision_layers": (1, 1, 1, 1), "vision_pool": "mean"}
ALPHA = 6.0


def filled(model: nnx.Module, seed: int) -> None:
    """Give every parameter of the low-rank parts a value that counts."""
    rng = np.random.default_rng(seed)
    for path, leaf in nnx.iter_graph(model):
        if "low_rank" in path and isinstance(leaf, nnx.Param):
            leaf[...] = 0.3 * rng.standard_normal(leaf.shape, np.float32)


def answers(graphdef, params, statistics):
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 32, 32, 3)).astype(np.uint8)
    tokens = rng.integers(1, 50, (3, 10)).astype(np.int32)

    def both(params, statistics):
        model = nnx.merge(graphdef, params, statistics)
        return model.encode_image(images), model.encode_text(tokens)

    return jax.jit(both, compiler_options={"xla_backend_optimization_level": 0})(params, statistics)


@pytest.mark.parametrize(
    "vision",
    [
        pytest.param({}, id="clip", marks=pytest.mark.slow),
        pytest.param(IMAGENET, id="imagenet"),
        pytest.param(VIT, id="vit"),
    ],
)
def test_merged_parts_give_the_same_vectors(tiny_clip, vision):
    model = tiny_clip(seeded(0), text_layers=2, **vision)
    plain, whole, statistics = split_model(model)
    before = answers(plain, whole, statistics)
    ranks = {"visual": 3, "bert": 2}
    in_blocks = parts._BLOCK.match
    add_low_rank(
        model,
        lambda path: ranks[path.partition("/")[0]] if in_blocks(path) else 0,
        ALPHA,
        rngs=nnx.Rngs(params=1),
    )
    graphdef, params, _ = split_model(model)
    for name, leaf in zip(("image", "text"), answers(graphdef, params, statistics), strict=True):
        np.testing.assert_array_equal(leaf, before[name == "text"], err_msg=f"{name} at the start")
    filled(model, seed=2)
    graphdef, params, _ = split_model(model)
    got, want = answers(graphdef, params, statistics), merged(params, ALPHA)
    assert parts.names_in(want) == parts.names_in(whole)
    for side, (one, other, start) in enumerate(
        zip(got, answers(plain, want, statistics), before, strict=True)
    ):
        np.testing.assert_allclose(one, other, atol=1e-5, err_msg=f"{side}")
        assert np.abs(np.asarray(one) - start).max() > 0.05
