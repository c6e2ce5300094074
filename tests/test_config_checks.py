"""What is refused before anything is spent, and what the refusal names."""

from contextlib import nullcontext

import pytest

from vclip_jax.config import default, small
from vclip_jax.config_checks import validate


def test_an_unknown_way_to_decode_is_refused_with_those_there_are():
    config = small()
    config.data.decode = "quick"
    with pytest.raises(ValueError, match=r"config\.data\.decode='quick' .* exact, fast"):
        validate(config, devices=1)


@pytest.mark.parametrize(
    ("size", "parts", "norm", "message"),
    [
        (1, 1, "global", r"global_batch_size=1 must be at least 2: a contrast needs two pairs"),
        (8, 8, "global", r"micro_batches=8: each part of .*=8 has one photograph, too few"),
        (8, 2, "device", r"micro_batches=2: .* one photograph on each device, too few"),
        (8, 4, "global", ""),
        (16, 2, "device", ""),
    ],
)
def test_every_contrast_and_every_statistic_needs_two(size, parts, norm, message):
    config = small()
    config.data.dataset = "idrid"
    config.global_batch_size, config.micro_batches, config.model.batch_norm = size, parts, norm
    devices = 4 if norm == "device" else 1
    with pytest.raises(ValueError, match=message) if message else nullcontext():
        validate(config, devices=devices)


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
