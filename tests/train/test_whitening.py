"""Whitened projections: white embeddings on the batch, and nothing else changes."""

import jax
import numpy as np
import pytest
from flax import nnx
from jax.sharding import NamedSharding

from vclip_jax.devices.sharding import BATCH as BATCH_SPEC
from vclip_jax.devices.sharding import make_mesh, state_sharding
from vclip_jax.devices.tree import path_string
from vclip_jax.models.clip import normalise_image
from vclip_jax.train.state import TrainState
from vclip_jax.train.whitening import RIDGE, jit_whiten, whiten_projections

PAIRS, WIDTH = 64, 8


def make_batch() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    # Noise under a coarse pattern of its own, lest all images look alike.
    pattern = np.kron(rng.integers(0, 192, (PAIRS, 2, 2, 3)), np.ones((1, 16, 16, 1), int))
    image = pattern + rng.integers(0, 64, (PAIRS, 32, 32, 3))
    tokens = rng.integers(1, 50, (PAIRS, 10)) * (np.arange(10) < rng.integers(3, 11, (PAIRS, 1)))
    return {"image": image.astype(np.uint8), "tokens": tokens.astype(np.int32)}


BATCH = make_batch()


@pytest.fixture(scope="module", params=["attention", "mean"])
def whitened(request, tiny_clip, random_variables):
    """Old and new parameters, and a function from parameters to embeddings not yet normalised."""
    graphdef, params, batch_stats = random_variables(
        lambda rngs: tiny_clip(rngs, vision_pool=request.param, text_pool="mean")
    )

    @jax.jit
    def embed(params, batch):
        model = nnx.merge(graphdef, params, batch_stats)
        image = model.visual(normalise_image(batch["image"]), train=True)
        return image, model.bert(batch["tokens"]) @ params["text_projection"]

    @jax.jit
    def whiten(params, batch):
        return whiten_projections(graphdef, params, batch_stats, batch)

    return params, whiten(params, BATCH), lambda params: embed(params, BATCH), whiten


def moments(x) -> tuple[np.ndarray, np.ndarray]:
    """Mean and second moment about the origin, in float64."""
    x = np.asarray(x, np.float64)
    return x.mean(axis=0), x.T @ x / len(x)


def inverse_root(second_moment: np.ndarray) -> np.ndarray:
    """(M + ridge)^(-1/2) by the eigendecomposition, in float64."""
    ridge = RIDGE * np.trace(second_moment) / WIDTH
    values, vectors = np.linalg.eigh(second_moment + ridge * np.eye(WIDTH))
    return vectors @ np.diag(values**-0.5) @ vectors.T


def test_image_embeddings_of_the_batch_are_centred_and_white(whitened):
    _, new, embed, _ = whitened
    mean, second = moments(embed(new)[0])
    np.testing.assert_allclose(mean, 0, atol=1e-5)
    # White up to the ridge: a direction of variance v keeps v / (v + ridge). The ridge is 1 % of
    # the mean variance, and the least variance of this batch 19 %.
    np.testing.assert_allclose(second, np.eye(WIDTH), atol=0.01 / 0.20)


def test_images_are_whitened_about_their_mean_and_captions_about_the_origin(whitened):
    params, new, embed, _ = whitened
    (image, text), (new_image, new_text) = embed(params), embed(new)
    image, text = np.asarray(image, np.float64), np.asarray(text, np.float64)
    centred = image - image.mean(axis=0)
    # Float32 knows a moment to 2^-24 of its largest eigenvalue, which is up to WIDTH / 1 % = 800
    # times the least that is inverted; so roots have errors of 400 * 2^-24, embeddings of up to 4
    # that many times.
    error = {"rtol": 0, "atol": 4 * 400 * 2**-24}
    np.testing.assert_allclose(new_image, centred @ inverse_root(moments(centred)[1]), **error)
    np.testing.assert_allclose(new_text, text @ inverse_root(moments(text)[1]), **error)


def test_what_all_captions_share_weighs_no_more_than_any_other_direction(whitened):
    params, new, embed, _ = whitened
    before, after = (
        np.linalg.eigvalsh(moments(embed(variables)[1])[1]) for variables in (params, new)
    )
    assert before[-1] > 0.8 * before.sum()
    assert after[-1] < 1
    assert after[-1] < 0.2 * after.sum()


def test_only_the_two_projections_change(whitened):
    params, new, _, _ = whitened
    same = jax.tree.map(np.array_equal, params, new)
    changed = {
        path_string(p) for p, equal in jax.tree_util.tree_leaves_with_path(same) if not equal
    }
    projection = "visual/attnpool/c_proj"
    assert changed == {f"{projection}/kernel", f"{projection}/bias", "text_projection"}
    for old, other in zip(jax.tree.leaves(params), jax.tree.leaves(new), strict=True):
        assert (old.shape, old.dtype) == (other.shape, other.dtype)


def test_the_result_is_a_function_of_the_arguments(whitened):
    params, new, _, whiten = whitened
    jax.tree.map(np.testing.assert_array_equal, whiten(params, BATCH), new)


def test_the_arguments_stay_as_they_were(tiny_clip, random_variables):
    graphdef, params, batch_stats = random_variables(tiny_clip)

    def whiten(params, batch_stats):
        arguments = params, batch_stats
        before = jax.tree.map(lambda leaf: leaf, arguments)
        whiten_projections(graphdef, params, batch_stats, BATCH)
        assert jax.tree.structure(arguments) == jax.tree.structure(before)
        leaves = zip(jax.tree.leaves(arguments), jax.tree.leaves(before), strict=True)
        assert all(new is old for new, old in leaves)

    jax.eval_shape(whiten, params, batch_stats)  # traces, which is all that it takes


def test_a_batch_with_fewer_pairs_than_dimensions_stays_finite(whitened):
    params, _, _, whiten = whitened
    few = {name: np.resize(rows[:3], rows.shape) for name, rows in BATCH.items()}
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(whiten(params, few)))


@pytest.mark.parametrize(("devices", "fsdp"), [(8, 1), (8, 4)])
def test_any_number_of_devices_gives_the_bits_of_one(tiny_clip, random_variables, devices, fsdp):
    graphdef, params, batch_stats = random_variables(tiny_clip)

    def whiten(devices: int, fsdp: int):
        mesh = make_mesh(fsdp, jax.devices()[:devices])
        state = TrainState(np.int32(0), params, batch_stats, ())
        shardings = state_sharding(state, mesh, [(".*", "fsdp")])
        batch = jax.device_put(BATCH, NamedSharding(mesh, BATCH_SPEC))
        return jit_whiten(graphdef, mesh, shardings)(
            jax.device_put(params, shardings.params),
            jax.device_put(batch_stats, shardings.batch_stats),
            batch,
        )

    jax.tree.map(np.testing.assert_array_equal, whiten(devices, fsdp), whiten(1, 1))
