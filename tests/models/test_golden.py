"""Chinese-CLIP's own results on seeded weights, from a file: see tests/golden/make_cn_clip.py."""

import importlib.util
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from vclip_jax.interop import names
from vclip_jax.models.clip import normalise
from vclip_jax.models.losses import contrastive_loss

GOLDEN = Path(__file__).parents[1] / "golden"


@pytest.fixture(scope="module")
def tiny():
    spec = importlib.util.spec_from_file_location("tiny", GOLDEN / "tiny.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def results(tiny):
    graphdef = tiny.split()[0]
    params, batch_stats = names.unflatten(tiny.weights())

    @jax.jit
    def run(params, batch_stats, batch):
        clip = nnx.merge(graphdef, params, batch_stats)
        evaluated = clip.visual(batch["pixels"], train=False)
        text = clip.bert(batch["tokens"]) @ clip.text_projection[...]

        def loss_fn(params):
            clip = nnx.merge(graphdef, params, batch_stats)
            image = normalise(clip.visual(batch["pixels"], train=True))
            unit = normalise(clip.bert(batch["tokens"]) @ clip.text_projection[...])
            loss = contrastive_loss(image, unit, clip.logit_scale[...])
            logits = jnp.exp(clip.logit_scale[...]) * image @ unit.T
            return loss, (logits, nnx.to_pure_dict(nnx.state(clip, nnx.BatchStat)))

        (loss, (logits, stats)), gradients = jax.value_and_grad(loss_fn, has_aux=True)(params)
        return (
            {
                "image_eval": evaluated,
                "text": text,
                "logits_train": logits,
                "loss": loss,
            },
            gradients,
            stats,
        )

    values, gradients, stats = run(params, batch_stats, tiny.batch())
    values["gradients"] = tiny.sketch(names.flatten(gradients))
    values["statistics"] = tiny.sketch(names.flatten(stats))
    return values


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "cn_clip_tiny.npz") as file:
        return dict(file)


@pytest.mark.parametrize(
    "name", ["image_eval", "text", "logits_train", "loss", "gradients", "statistics"]
)
def test_results_are_chinese_clips(name, results, golden):
    want = golden[name]
    assert np.asarray(results[name]).shape == want.shape
    np.testing.assert_allclose(results[name], want, rtol=1e-4, atol=1e-5 * np.abs(want).max())
