"""Operations counted from sizes against those of the program that XLA makes of the model."""

import jax
import jax.numpy as jnp
import pytest
from flax import nnx

from vclip_jax.compilation.cost import cost_of
from vclip_jax.config import default
from vclip_jax.devices.chips import chip_named
from vclip_jax.models import convolution, layers
from vclip_jax.models.batch_norm import BatchNorm
from vclip_jax.models.build import build_clip, split_model
from vclip_jax.models.flops import pair_flops, step_flops, utilisation
from vclip_jax.models.losses import contrastive_loss
from vclip_jax.models.rng import seeded

BATCH, LENGTH = 4, 12


def model(**changes):
    section = default().model.to_dict()
    return (
        section
        | {
            "embed_dim": 48,
            "vision_layers": (2, 1, 1, 1),
            "vision_width": 16,
            "text_width": 64,
            "text_layers": 2,
            "text_heads": 4,
            "text_mlp_width": 160,
            "text_max_positions": LENGTH,
            "text_dropout": 0.0,
        }
        | changes
    )


def lowered(section, image_size: int, length: int, batch: int):
    """The gradient of the loss, on one device."""

    def make():
        return build_clip(section, seeded(0), image_size=image_size, vocab_size=50)

    graphdef, params, batch_stats = split_model(nnx.eval_shape(make))

    def loss(params, batch_stats, images, tokens):
        clip = nnx.merge(graphdef, params, batch_stats)
        image, text = clip.encode_image(images, train=True), clip.encode_text(tokens)
        return contrastive_loss(image, text, clip.logit_scale[...])

    images = jax.ShapeDtypeStruct((batch, image_size, image_size, 3), jnp.uint8)
    tokens = jax.ShapeDtypeStruct((batch, length), jnp.int32)
    return jax.jit(jax.value_and_grad(loss)).lower(params, batch_stats, images, tokens)


def write_out_the_model(monkeypatch) -> None:
    """Take two ways that cost products of their own out of the program."""
    # On CPUs kernels' gradients are matrix products, which multiply by padding, too.
    monkeypatch.setattr(layers, "convolve", convolution._native)
    # Norms after 1x1 convolutions take their statistics from products of the inputs.
    monkeypatch.setattr(
        BatchNorm, "of_convolution", lambda self, conv, x, *, train: self(conv(x), train=train)
    )


SYSTEMS = {
    "modified resnet and bert": ({}, 64),
    "mean pooling and an mlp after the text": (
        {"vision_layers": (1, 1, 1, 1), "vision_pool": "mean", "text_projection_kind": "mlp"},
        32,
    ),
    "resnet v1.5": ({"vision_layers": (1, 1, 1, 1), "vision_kind": "imagenet"}, 32),
    "vision transformer and clip's text": (
        {
            "vision_layers": (2,),
            "vision_width": 64,
            "vision_patch_size": 8,
            "text_kind": "clip",
            "text_pool": "end",
        },
        32,
    ),
}


@pytest.mark.parametrize(
    "system",
    [
        "modified resnet and bert",
        "vision transformer and clip's text",
        # Compiling a ResNet takes long, whatever its size.
        pytest.param("mean pooling and an mlp after the text", marks=pytest.mark.slow),
        pytest.param("resnet v1.5", marks=pytest.mark.slow),
    ],
)
def test_a_step_takes_the_products_of_the_compiled_program(system, monkeypatch):
    write_out_the_model(monkeypatch)
    changes, size = SYSTEMS[system]
    section = model(**changes)
    program = lowered(section, size, LENGTH, BATCH).compile()
    want = step_flops(section, image_size=size, context_length=LENGTH, global_batch=BATCH)
    # XLA may write the products of a single query out.
    assert cost_of(program.as_text(), chip_named("v5e")).flops == pytest.approx(want, rel=2e-4)
    # Its own analysis counts everything else, too, which is much where channels are few.
    assert 1.0 < program.cost_analysis()["flops"] / want < 1.12


@pytest.mark.slow
def test_the_papers_step_takes_what_xla_counts_within_two_percent(monkeypatch):
    write_out_the_model(monkeypatch)
    section = default().model.to_dict() | {"text_dropout": 0.0}
    got = lowered(section, 224, 64, 16).cost_analysis()["flops"]
    want = step_flops(section, image_size=224, context_length=64, global_batch=16)
    assert 1.0 < got / want < 1.02


def test_the_papers_towers_take_what_others_have_counted():
    # 11.6e9 and 11.0e9 for RN50 and BERT-base of 64 tokens, by hand, padding of images included,
    # and the keys and values of the 50 positions of its attention pooling, which ours spares.
    pair = pair_flops(default().model, image_size=224, context_length=64)
    keys_and_values = 2 * 2 * 50 * 2048**2
    assert pair.image + keys_and_values == pytest.approx(11.6e9, rel=0.04)
    assert pair.text == pytest.approx(11.0e9, rel=0.01)


def test_utilisation_is_of_the_peak_of_all_devices():
    class Device:
        device_kind = "TPU v5 lite"

    devices: list = [Device()] * 4
    assert utilisation(197e12, 0.5, devices) == pytest.approx(0.5)
    assert utilisation(197e12, 0.5, jax.devices()) is None
