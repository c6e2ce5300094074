"""The towers of the systems that VisionCLIP is compared with: sizes, causality, pooling."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vclip_jax.devices import tree
from vclip_jax.models.bert import Bert, BertConfig
from vclip_jax.models.clip import Clip
from vclip_jax.models.clip_text import ClipText, ClipTextConfig
from vclip_jax.models.resnet_v15 import ResNetV15, max_pool
from vclip_jax.models.rng import seeded

TINY = ClipTextConfig(vocab_size=20, width=16, layers=2, heads=2, mlp_width=32, max_positions=8)
END = TINY.vocab_size - 1


def parameters(make) -> int:
    return tree.count(nnx.state(nnx.eval_shape(make), nnx.Param))


@pytest.mark.parametrize(
    ("published", "sizes"),
    [
        (
            151_277_313,
            {
                "embed_dim": 512,
                "vision_layers": (12,),
                "vision_width": 768,
                "vision_patch_size": 32,
            },
        ),
        (149_620_737, {"embed_dim": 512, "vision_layers": (12,), "vision_width": 768}),
        (102_007_137, {"embed_dim": 1024, "vision_layers": (3, 4, 6, 3), "vision_width": 64}),
    ],
    ids=["ViT-B/32", "ViT-B/16", "RN50"],
)
def test_clip_has_the_published_number_of_parameters(published, sizes):
    def make():
        return Clip(**sizes, image_size=224, text=ClipTextConfig(), rngs=seeded(0))

    assert parameters(make) == published


def test_the_towers_of_imagenet_have_the_published_numbers_of_parameters():
    flair = {"vision_layers": (3, 4, 6, 3), "vision_width": 64, "image_size": 512}
    vit = {"vision_layers": (12,), "vision_width": 768, "image_size": 224}
    for sizes, published in ((flair, 23_508_032 + 2048 * 512), (vit, 85_798_656 + 768 * 512)):

        def make(sizes=sizes):
            clip = Clip(
                **sizes,
                embed_dim=512,
                vision_kind="imagenet",
                text=BertConfig(layers=0),
                rngs=seeded(0),
            )
            return clip.visual

        assert parameters(make) == published


@pytest.fixture(scope="module")
def text_tower(random_variables):
    """Tokens -> features, compiled for each shape."""
    graphdef, params, batch_stats = random_variables(lambda rngs: ClipText(TINY, rngs=rngs))
    run = jax.jit(lambda params, tokens: nnx.merge(graphdef, params, batch_stats)(tokens))
    return functools.partial(run, params)


def test_what_follows_the_end_changes_nothing(text_tower):
    caption = [3, 4, 5, END]
    tokens = jnp.array([[*caption, 0, 0, 0, 0], [*caption, 7, END, 2, 1], [*caption, *[END] * 4]])
    got = np.asarray(text_tower(tokens))
    np.testing.assert_allclose(got, got[:1].repeat(3, 0), rtol=1e-5, atol=1e-6)


def test_every_token_before_the_end_matters(text_tower):
    caption = np.array([3, 4, 5, 6, END, 0, 0, 0])
    changed = np.stack([caption, *(np.where(np.arange(8) == i, 9, caption) for i in range(4))])
    got = np.asarray(text_tower(jnp.asarray(changed)))
    assert (np.abs(got[1:] - got[0]).max(axis=1) > 1e-3).all()


def test_a_short_row_is_the_beginning_of_a_long_one(text_tower):
    tokens = jnp.array([[3, 4, END, 0, 0, 0, 0, 0]])
    np.testing.assert_allclose(text_tower(tokens), text_tower(tokens[:, :3]), rtol=1e-4, atol=1e-5)


def test_pooling_of_layers_is_the_mean_over_three_layers_and_the_real_tokens(random_variables):
    sizes = {
        "vocab_size": 20,
        "width": 16,
        "heads": 2,
        "mlp_width": 32,
        "max_positions": 8,
        "dropout": 0.0,
    }
    _, params, _ = random_variables(lambda rngs: Bert(BertConfig(**sizes, layers=4), rngs=rngs))
    tokens = jnp.array([[2, 5, 6, 3, 0, 0], [2, 7, 3, 0, 0, 0]])

    def run(pool: str, layers: int) -> np.ndarray:
        config = BertConfig(**sizes, layers=layers, pool=pool)
        graphdef = nnx.graphdef(nnx.eval_shape(lambda: Bert(config, rngs=seeded(0))))
        kept = {index: params["layer"][index] for index in range(layers)}
        encode = jax.jit(lambda params: nnx.merge(graphdef, params)(tokens))
        return np.asarray(encode(params | {"layer": kept}))

    want = (run("mean", 1) + run("mean", 2) + run("mean", 4)) / 3
    np.testing.assert_allclose(run("layers", 4), want, rtol=1e-5, atol=1e-6)


def test_the_largest_of_three_by_three_is_taken_around_every_second_position():
    x = np.random.default_rng(0).standard_normal((1, 6, 6, 2)).astype(np.float32)
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    want = np.stack(
        [
            np.stack([padded[:, r : r + 3, c : c + 3].max((1, 2)) for c in (0, 2, 4)], 1)
            for r in (0, 2, 4)
        ],
        1,
    )
    np.testing.assert_array_equal(max_pool(jnp.asarray(x)), want)


def test_a_resnet_of_torchvision_has_a_total_stride_of_32_and_takes_any_size(random_variables):
    graphdef, params, stats = random_variables(
        lambda rngs: ResNetV15(layers=(1, 1, 1, 1), width=8, embed_dim=6, rngs=rngs)
    )
    run = jax.jit(lambda variables, x: nnx.merge(graphdef, *variables)(x, train=False))
    for side in (32, 64):
        features = run((params, stats), jnp.ones((2, side, side, 3)))
        assert features.shape == (2, 6)
        assert np.isfinite(features).all()


def test_statistics_of_channels_are_the_models_own(tiny_clip, random_variables):
    images = np.full((1, 32, 32, 3), 51, np.uint8)
    seen = []
    for statistics in ({}, {"image_mean": (0.0,) * 3, "image_std": (1.0,) * 3}):
        graphdef, *variables = random_variables(
            lambda rngs, statistics=statistics: tiny_clip(rngs, **statistics)
        )

        @jax.jit
        def run(variables, graphdef=graphdef):
            model = nnx.merge(graphdef, *variables)
            plain = model.visual(jnp.full(images.shape, 0.2), train=False)
            return model.encode_image(images), model.image_features(images), plain

        embedding, features, plain = run(variables)
        seen.append(embedding)
        if statistics:
            np.testing.assert_allclose(features, plain, rtol=1e-4, atol=1e-5)
    assert np.abs(seen[0] - seen[1]).max() > 1e-3


@pytest.mark.parametrize(
    "changes",
    [
        {"vision_kind": "imagenet"},
        {"text_projection_kind": "mlp"},
        {"text": TINY, "vision_layers": (1,), "vision_width": 64},
    ],
)
def test_gradients_reach_every_parameter(changes, random_variables):
    sizes = {"embed_dim": 8, "image_size": 32, "vision_layers": (1, 1, 1, 1), "vision_width": 8}
    bert = BertConfig(vocab_size=20, width=16, layers=1, heads=2, mlp_width=32, max_positions=8)
    graphdef, params, stats = random_variables(
        lambda rngs: Clip(**{**sizes, "text": bert, **changes}, rngs=rngs)
    )
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (4, 32, 32, 3), np.uint8)
    tokens = rng.integers(1, END, (4, 8)).astype(np.int32)
    weights = rng.standard_normal((2, 4, 8))

    def loss(params):
        model = nnx.merge(graphdef, params, stats)
        pair = model.encode_image(images, train=True), model.encode_text(tokens)
        return sum((w * x).sum() for w, x in zip(weights, pair, strict=True))

    gradients = jax.jit(jax.grad(loss))(params)
    for path, gradient in jax.tree_util.tree_flatten_with_path(gradients)[0]:
        name = tree.path_string(path)
        assert np.isfinite(gradient).all(), name
        # The loss above has no scale; softmax cancels what a keys' bias adds to a query's scores.
        unused = name == "logit_scale" or name.endswith("attnpool/k_proj/bias")
        assert (np.abs(gradient).max() > 0) != unused, name
