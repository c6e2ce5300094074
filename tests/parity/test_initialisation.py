"""Initial weights: every tensor drawn from the distribution that Chinese-CLIP draws it from."""

import jax
import numpy as np
import pytest
from flax import nnx

from vclip_jax.interop import names
from vclip_jax.models.build import split_model

pytest.importorskip("torch", reason="needs the [parity] extra: torch")


@pytest.mark.parametrize("size", ["RN50 + RoBERTa-base", "ViT-B/16 + RBT3"])
def test_every_tensor_has_their_mean_and_deviation(size, reference, ours, make_clip, table):
    model = reference(size, 0, initial=True)
    theirs = names.flatten(*ours(size, model)[1:])
    fresh = jax.jit(lambda: split_model(make_clip(size)(nnx.Rngs(1)))[1:])()
    got = {name: np.asarray(value, np.float64) for name, value in names.flatten(*fresh).items()}
    assert got.keys() == theirs.keys()
    for name, value in got.items():
        want = np.asarray(theirs[name], np.float64)
        if np.ptp(want) == 0:  # constants: norms, biases, counters
            np.testing.assert_array_equal(value, want, err_msg=name)
            continue
        # In standard errors; a standard deviation has one of std / sqrt(2 n), or less.
        n, spread = want.size, want.std()
        if n < 64:
            continue
        centre = abs(value.mean() - want.mean()) / (spread * np.sqrt(2 / n))
        width = abs(value.std() - want.std()) / (spread / np.sqrt(n))
        table.check("initial mean of every tensor", size, "standard errors", centre, 5.0)
        table.check("initial deviation of every tensor", size, "standard errors", width, 5.0)
        # Normal or uniform? The fourth moment, 3 or 1.8, has a standard error of sqrt(24 / n).
        tails = abs(kurtosis(value) - kurtosis(want)) / np.sqrt(2 * 24 / n)
        table.check("initial tails of every tensor", size, "standard errors", tails, 5.0)


def kurtosis(x: np.ndarray) -> float:
    centred = x - x.mean()
    return float((centred**4).mean() / (centred**2).mean() ** 2)
