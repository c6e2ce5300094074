"""What is refused before anything is spent, and what the refusal names."""

import pytest

from vclip_jax.config import default, small
from vclip_jax.config_checks import validate


def test_an_unknown_way_to_decode_is_refused_with_those_there_are():
    config = small()
    config.data.decode = "quick"
    with pytest.raises(ValueError, match=r"config\.data\.decode='quick' .* exact, fast"):
        validate(config, devices=1)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("kind", "ring", "'ring' must be one of softmax, softmax_ring, sigmoid, sigmoid_ring"),
        ("targets", "label", "'label' must be one of pair, caption"),
        ("label_smoothing", 1.0, r"1\.0 must lie in \[0, 1\)"),
        ("label_smoothing", -0.1, r"-0\.1 must lie in \[0, 1\)"),
    ],
)
def test_a_loss_that_there_is_not_is_refused_with_those_there_are(key, value, message):
    config = default()
    config.data.dataset = "idrid"
    config.loss[key] = value
    with pytest.raises(ValueError, match=rf"config\.loss\.{key}={message}"):
        validate(config, devices=1)
