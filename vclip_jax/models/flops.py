"""The operations of a training step, from the sizes of the model, and their share of the peak.

Matrix products and convolutions are counted, 2 operations for a multiplication and an addition,
only at positions inside the image, as XLA counts them (XLA also counts an operation for each
element of everything else, 0.7% more for RN50 and BERT-base). A gradient takes two products for
each product of the forward pass, except for the first convolution, because the gradient of the
image is not needed; see Chowdhery et al. 2022, "PaLM", appendix B, for this rule of three and for
model FLOP utilisation (MFU). Recomputation takes time, but does not count as work of the step; nor
do the products by which norms after 1x1 convolutions save passes over their data
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
    """Operations of the image tower's first convolution, whose input needs no gradient."""
    text: int

    @property
    def training(self) -> int:
        """Operations of the forward and backward pass."""
        return 3 * (self.image + self.text) - self.first_convolution


def pair_flops(model: Mapping[str, Any], *, image_size: int, context_length: int) -> PairFlops:
    """Return the operations of the towers for a pair.

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
    """Return the operations of a training step on all devices: towers, loss, and gradients of both.

    The loss multiplies all images by all texts once (see `vclip_jax.models.losses`). The result is
    None for a recipe's own tower, whose operations are not known.
    """
    known = {"vision_kind": ("clip", "imagenet"), "text_kind": ("bert", "clip")}
    if any(model[key] not in kinds for key, kinds in known.items()):
        return None
    pair = pair_flops(model, image_size=image_size, context_length=context_length)
    loss = 3 * 2 * global_batch**2 * model["embed_dim"]
    return float(global_batch * pair.training + loss)


def utilisation(flops: float | None, seconds: float, devices: Sequence[jax.Device]) -> float | None:
    """Return the model FLOP utilisation (MFU): the share of the devices' bfloat16 peak, in [0, 1].

    Args:
        flops: operations of a step on all devices, from `step_flops`.
        seconds: the time of the step.
        devices: the devices, all of one kind.

    Returns:
        None if the peak, as for CPUs, or the operations are not known.
    """
    chip = chip_of(devices[0].device_kind)
    return (
        None
        if chip is None or flops is None
        else flops / (seconds * len(devices) * chip.peak_flops)
    )


def _convolution(image: int, inputs: int, outputs: int, kernel: int, stride: int = 1) -> int:
    """Return the operations for a square image whose size stays at stride 1."""
    positions = meeting_positions(image, kernel, -(-image // stride), stride, kernel // 2)
    return 2 * positions**2 * inputs * outputs


def _bottleneck(image: int, inputs: int, planes: int, stride: int, antialias: bool) -> int:
    """Return the operations of a block of `models/resnet.py`."""
    outputs, small = planes * EXPANSION, image // stride
    total = _convolution(image, inputs, planes, 1)
    total += _convolution(image, planes, planes, 3, 1 if antialias else stride)
    total += _convolution(small, planes, outputs, 1)
    if stride > 1 or inputs != outputs:
        total += _convolution(small, inputs, outputs, 1)
    return total


def _stages(model: Mapping[str, Any], image: int, antialias: bool) -> int:
    """Return the operations of the four stages of a ResNet, whose input is `image` pixels wide."""
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
    """Return the operations of CLIP's ResNet, and of its first convolution."""
    width, outputs = model["vision_width"], model["embed_dim"]
    half = width // 2
    first = _convolution(size, 3, half, 3, 2)
    total = first + _convolution(size // 2, half, half, 3) + _convolution(size // 2, half, width, 3)
    total += _stages(model, size // 4, antialias=True)
    features = width * 8 * EXPANSION
    total += 2 * features * outputs
    if model["vision_pool"] == "attention":
        # One query over all positions and their mean: the projections of the query, of each head's
        # key and of its value; the two products of attention, which for each head are as wide as
        # the features.
        tokens, heads = (size // 32) ** 2 + 1, attention_heads(width)
        total += 2 * 3 * features**2 + 2 * 2 * heads * tokens * features
    return total, first


def _resnet_v15(model: Mapping[str, Any], size: int) -> tuple[int, int]:
    """Return the operations of torchvision's ResNet, and of its first convolution."""
    width = model["vision_width"]
    first = _convolution(size, 3, width, 7, 2)
    stages = _stages(model, size // 4, antialias=False)
    return first + stages + 2 * width * 8 * EXPANSION * model["embed_dim"], first


def _vision_transformer(model: Mapping[str, Any], size: int) -> tuple[int, int]:
    """Return the operations of the Vision Transformer, and of its patches' convolution."""
    width, patch = model["vision_width"], model["vision_patch_size"]
    patches = (size // patch) ** 2
    first = 2 * patches * patch**2 * 3 * width
    blocks = model["vision_layers"][0] * _block(patches + 1, width, VIT_MLP_FACTOR * width)
    return first + blocks + 2 * width * model["embed_dim"], first


def _text(model: Mapping[str, Any], length: int) -> int:
    """Return the operations of either text tower and its projection."""
    width, outputs = model["text_width"], model["embed_dim"]
    blocks = model["text_layers"] * _block(length, width, model["text_mlp_width"])
    if model["text_projection_kind"] == "mlp":
        hidden = (width + outputs) // 2
        return blocks + 2 * width * hidden + 2 * hidden * outputs
    return blocks + 2 * width * outputs


def _block(tokens: int, width: int, mlp_width: int) -> int:
    """Count a Transformer's layer: four projections, two products of attention, two of the MLP."""
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
    """Count the pairs of a window position and a result position that fall on an image's pixel."""
    first = np.arange(0, result * stride, stride) - pad
    count = 0
    for offset in range(0, kernel * dilation, dilation):
        places = first + offset
        inside = (places >= 0) & (places < image * spread)
        count += int((inside & (places % spread == 0)).sum())
    return count
