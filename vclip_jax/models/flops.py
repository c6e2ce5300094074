"""How many operations a training step takes, from the sizes of the model, and what share of the
devices' peak that is.

Counted are matrix products and convolutions, 2 operations for a multiplication and an addition, at
positions inside the image only, as XLA counts them (the rest of what XLA counts, an operation for
each element of everything else, is 0.7% more for RN50 and BERT-base). A gradient takes two products
where the forward pass takes one, but for the first convolution, as nobody asks for the gradient of
the image; see Chowdhery et al. 2022, "PaLM", appendix B, for this rule of three and for model FLOP
utilisation (MFU). Recomputing what was not kept takes time, but is no work of the step, and does
not count; nor do the products by which norms after 1x1 convolutions spare passes over their data
(`models/batch_norm.py`).
"""

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import numpy as np

from vclip_jax.devices.chips import chip_of
from vclip_jax.models.resnet import EXPANSION, attention_heads

# As in `models/vit.py`.
VIT_MLP_FACTOR = 4


@dataclass(frozen=True)
class PairFlops:
    """Operations of the forward pass for one pair."""

    image: int
    first_convolution: int
    """Of the image tower's; its input needs no gradient."""
    text: int

    @property
    def training(self) -> int:
        """Forward and backward."""
        return 3 * (self.image + self.text) - self.first_convolution


def pair_flops(model: Mapping[str, Any], *, image_size: int, context_length: int) -> PairFlops:
    """What the towers take for a pair.

    Args:
        model: `config.model`.
        image_size: side of the square images in pixels.
        context_length: tokens of a caption, padding included.
    """
    if len(model["vision_layers"]) == 1:
        image, first = _vision_transformer(model, image_size)
    elif model["vision_kind"] == "imagenet":
        image, first = _resnet_v15(model, image_size)
    else:
        image, first = _modified_resnet(model, image_size)
    return PairFlops(image, first, _text(model, context_length))


def step_flops(
    model: Mapping[str, Any], *, image_size: int, context_length: int, global_batch: int
) -> float | None:
    """What a training step takes on all devices together: towers, loss, and gradients of both.

    The loss multiplies all images by all texts once (see `vclip_jax.models.losses`). None where a
    tower is a recipe's own, whose operations are not known.
    """
    known = {"vision_kind": ("clip", "imagenet"), "text_kind": ("bert", "clip")}
    if any(model[key] not in kinds for key, kinds in known.items()):
        return None
    pair = pair_flops(model, image_size=image_size, context_length=context_length)
    loss = 3 * 2 * global_batch**2 * model["embed_dim"]
    return float(global_batch * pair.training + loss)


def utilisation(flops: float | None, seconds: float, devices: Sequence[jax.Device]) -> float | None:
    """Model FLOP utilisation (MFU): the share of the devices' bfloat16 peak, in [0, 1].

    Args:
        flops: of a step on all devices, from `step_flops`.
        seconds: that the step took.
        devices: all of one kind.

    Returns:
        None where the peak, as for CPUs, or the operations are not known.
    """
    chip = chip_of(devices[0].device_kind)
    return (
        None
        if chip is None or flops is None
        else flops / (seconds * len(devices) * chip.peak_flops)
    )


def _convolution(image: int, inputs: int, outputs: int, kernel: int, stride: int = 1) -> int:
    """Of a square image whose size at stride 1 stays."""
    positions = meeting_positions(image, kernel, -(-image // stride), stride, kernel // 2)
    return 2 * positions**2 * inputs * outputs


def _bottleneck(image: int, inputs: int, planes: int, stride: int, antialias: bool) -> int:
    """A block of `models/resnet.py`."""
    outputs, small = planes * EXPANSION, image // stride
    total = _convolution(image, inputs, planes, 1)
    total += _convolution(image, planes, planes, 3, 1 if antialias else stride)
    total += _convolution(small, planes, outputs, 1)
    if stride > 1 or inputs != outputs:
        total += _convolution(small, inputs, outputs, 1)
    return total


def _stages(model: Mapping[str, Any], image: int, antialias: bool) -> int:
    """The four stages of a ResNet, whose input is `image` pixels wide."""
    width = inputs = model["vision_width"]
    total = 0
    for stage, blocks in enumerate(model["vision_layers"]):
        planes = width * 2**stage
        for block in range(blocks):
            stride = 2 if block == 0 and stage > 0 else 1
            total += _bottleneck(image, inputs, planes, stride, antialias)
            inputs, image = planes * EXPANSION, image // stride
    return total


def _modified_resnet(model: Mapping[str, Any], size: int) -> tuple[int, int]:
    """All of CLIP's ResNet, and its first convolution."""
    width, outputs = model["vision_width"], model["embed_dim"]
    half = width // 2
    first = _convolution(size, 3, half, 3, 2)
    total = first + _convolution(size // 2, half, half, 3) + _convolution(size // 2, half, width, 3)
    total += _stages(model, size // 4, antialias=True)
    features = width * 8 * EXPANSION
    total += 2 * features * outputs
    if model["vision_pool"] == "attention":
        # One query over all positions and their mean: the projections of the query, of what each
        # head asks and of what it is answered; the two products of attention, a head's each as wide
        # as the features.
        tokens, heads = (size // 32) ** 2 + 1, attention_heads(width)
        total += 2 * 3 * features**2 + 2 * 2 * heads * tokens * features
    return total, first


def _resnet_v15(model: Mapping[str, Any], size: int) -> tuple[int, int]:
    """All of torchvision's ResNet, and its first convolution."""
    width = model["vision_width"]
    first = _convolution(size, 3, width, 7, 2)
    stages = _stages(model, size // 4, antialias=False)
    return first + stages + 2 * width * 8 * EXPANSION * model["embed_dim"], first


def _vision_transformer(model: Mapping[str, Any], size: int) -> tuple[int, int]:
    """All of the Vision Transformer, and its patches' convolution."""
    width, patch = model["vision_width"], model["vision_patch_size"]
    patches = (size // patch) ** 2
    first = 2 * patches * patch**2 * 3 * width
    blocks = model["vision_layers"][0] * _block(patches + 1, width, VIT_MLP_FACTOR * width)
    return first + blocks + 2 * width * model["embed_dim"], first


def _text(model: Mapping[str, Any], length: int) -> int:
    """Either text tower and its projection."""
    width, outputs = model["text_width"], model["embed_dim"]
    blocks = model["text_layers"] * _block(length, width, model["text_mlp_width"])
    if model["text_projection_kind"] == "mlp":
        hidden = (width + outputs) // 2
        return blocks + 2 * width * hidden + 2 * hidden * outputs
    return blocks + 2 * width * outputs


def _block(tokens: int, width: int, mlp_width: int) -> int:
    """A Transformer's layer: four projections, two products of attention, two of the MLP."""
    return 2 * tokens * (4 * width**2 + 2 * tokens * width + 2 * width * mlp_width)


@functools.cache
def meeting_positions(
    image: int,
    kernel: int,
    result: int,
    stride: int,
    pad: int,
    spread: int = 1,
    dilation: int = 1,
) -> int:
    """Of all pairs of a window's and a result's position, those that fall on an image's pixel."""
    first = np.arange(0, result * stride, stride) - pad
    count = 0
    for offset in range(0, kernel * dilation, dilation):
        places = first + offset
        inside = (places >= 0) & (places < image * spread)
        count += int((inside & (places % spread == 0)).sum())
    return count
