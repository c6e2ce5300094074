"""The table of chips, and which of them a device is."""

import pytest

from vclip_jax.devices.chips import chip_named, chip_of


@pytest.mark.parametrize(
    ("device_kind", "name"),
    [
        # What libtpu 0.0.42.1 calls the devices of its topologies, and CUDA's driver its GPUs.
        ("TPU v3", "v3"),
        ("TPU v4", "v4"),
        ("TPU v5 lite", "v5e"),
        ("TPU v5", "v5p"),
        ("TPU v5p", "v5p"),
        ("TPU v6 lite", "v6e"),
        ("TPU7x", "7x"),
        ("NVIDIA H100 80GB HBM3", "h100"),
        ("NVIDIA A100-SXM4-80GB", "a100"),
    ],
)
def test_a_device_is_the_chip_that_its_kind_says(device_kind, name):
    assert chip_of(device_kind) == chip_named(name)


def test_a_cpu_is_none_of_them():
    assert chip_of("cpu") is None


def test_an_unknown_name_is_answered_with_the_known_ones():
    with pytest.raises(ValueError, match="'v9': use one of v3, v4, v5e"):
        chip_named("v9")


@pytest.mark.parametrize(
    ("name", "products"),
    [
        # Multiplications and additions a cycle: 2 of each cell of the matrix units of a device.
        ("v3", 2 * 2 * 128 * 128),
        ("v4", 2 * 2 * 4 * 128 * 128),
        ("v5e", 2 * 4 * 128 * 128),
        ("v5p", 2 * 2 * 4 * 128 * 128),
        ("v6e", 2 * 4 * 256 * 256),
        ("7x", 2 * 4 * 256 * 256),
    ],
)
def test_peak_and_clock_of_a_tpu_agree(name, products):
    chip = chip_named(name)
    # The clocks have two or three digits.
    assert chip.peak_flops == pytest.approx(products * chip.clock_hz, rel=5e-3)
