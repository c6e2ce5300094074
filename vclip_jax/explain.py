"""Where in a photograph the evidence for a prompt lies: heat maps and their overlays.

The question is put to the model itself: how does the cosine with a class's prompts, less the mean
cosine with the other classes', change when the features at one place of an inner layer are replaced
by their mean over the whole picture? Integrated gradients (M. Sundararajan, A. Taly and Q. Yan,
ICML 2017, arXiv:1703.01365) along the way from that levelled layer to the real one answer it for
all places at once, and their sum is the difference between the picture's score and the levelled
one's. Two layers are asked and averaged: of a ResNet's four stages the second and the third (the
last sees whole regions, in cells of 32 pixels, and the first only edges); of a Vision Transformer
the patches' tokens after one and after two thirds of its blocks.

This did best where `benchmarks/heat_maps.py` plants one lesion in a healthy eye and asks whether
the heat is highest there. Projecting each position of the last layer into the common space, as
B. Zhou et al. (CVPR 2016, arXiv:1512.04150) and MaskCLIP (C. Zhou et al., ECCV 2022,
arXiv:2112.01071) do, hit half as often; gradients times activations (HiResCAM, R. Draelos and
L. Carin, arXiv:2011.08891) and LayerCAM (P.-T. Jiang et al., IEEE TIP 2021) were good for some
lesions and poor for others. A heat map shows what moved the model, right or wrong. Not for
diagnosis.
"""

from collections.abc import Callable, Sequence
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx
from jax.typing import ArrayLike

from vclip_jax.models.clip import normalise
from vclip_jax.models.vit import VisionTransformer
from vclip_jax.pretrained import Pretrained, Prompts
from vclip_jax.zero_shot import Variables

STEPS = 8
"""Points on the way from the levelled layer to the real one."""
BLUR = 1 / 21
"""Standard deviation of the smoothing, as a part of the picture's side: half a cell of 16 pixels of
224, so that neither the grid nor a single pixel decides."""

HeatFunction = Callable[[Variables, ArrayLike, ArrayLike], jax.Array]


def class_directions(classes: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """What is asked of each class: its vector less the mean of the others'.

    Args:
        classes: the prompts' vectors, float32 `[c, d]`, at least two.

    Returns:
        float32 `[c, d]`.

    Raises:
        ValueError: there is only one class.
    """
    count = len(classes)
    if count < 2:
        raise ValueError("a heat map compares a class with others: give at least two")
    others = (classes.sum(axis=0) - classes) / (count - 1)
    return np.asarray(classes - others, np.float32)


def make_heat_function(graphdef: nnx.GraphDef) -> HeatFunction:
    """Compile the heat maps of a model, which `Explainer` wraps for people.

    Args:
        graphdef: the model's structure, from `state.split_model`.

    Returns:
        A jitted function of the model's variables, images uint8 `[n, s, s, 3]` and directions
        float32 `[n, d]` (such as rows of `class_directions`). It returns float32 `[n, s, s]`: what
        each pixel adds to the cosine with the direction, times the number of pixels. The mean over
        a picture is what the places of its features add to what they are made of, but for what the
        smoothing carries over the border.
    """

    def heat(variables: Variables, images: jax.Array, directions: jax.Array) -> jax.Array:
        depth = len(_places(nnx.merge(graphdef, *variables).visual))
        size = images.shape[1]
        maps = [
            _upsample(_integrated(graphdef, variables, images, directions, place), size)
            for place in range(depth)
        ]
        return _smooth(sum(maps[1:], maps[0]) / depth, BLUR * size)

    return jax.jit(heat)


def _places(visual: nnx.Module) -> list[tuple[nnx.List, int]]:
    """The blocks after which features are looked at: lists of blocks and positions in them."""
    if isinstance(visual, VisionTransformer):
        blocks = visual.transformer.resblocks
        thirds = {len(blocks) // 3, 2 * len(blocks) // 3}
        return [(blocks, max(1, third) - 1) for third in sorted(thirds)]
    stages = [getattr(visual, f"layer{number}") for number in (2, 3)]
    return [(stage, len(stage) - 1) for stage in stages]


class _Tap:
    """Stands in the place of a block: keeps what it gives, or gives something else."""

    def __init__(self, block: nnx.Module, replacement: jax.Array | None = None):
        self.block, self.replacement = block, replacement
        self.given: jax.Array

    def __call__(self, x: jax.Array, **options: Any) -> jax.Array:
        self.given = self.block(x, **options)
        return self.given if self.replacement is None else self.replacement


def _integrated(
    graphdef: nnx.GraphDef,
    variables: Variables,
    images: jax.Array,
    directions: jax.Array,
    place: int,
) -> jax.Array:
    """Integrated gradients at one place, summed over channels: float32 `[n, h, w]`, whose mean over
    h and w is the difference in scores."""

    def run(replacement: jax.Array | None) -> tuple[jax.Array, jax.Array]:
        # What comes before a replaced block feeds nothing, and the compiler leaves it out.
        model = nnx.merge(graphdef, *variables)
        blocks, index = _places(model.visual)[place]
        tap = blocks[index] = _Tap(blocks[index], replacement)
        scores = jnp.sum(normalise(model.image_features(images)) * directions, axis=-1)
        return scores.sum(), tap.given

    _, features = run(None)
    tokens = features.ndim == 3  # a class token, which has no place, and the patches
    local = features[:, 1:] if tokens else features
    places = tuple(range(1, local.ndim - 1))
    level = jnp.broadcast_to(local.mean(axis=places, keepdims=True), local.shape)
    if tokens:
        level = jnp.concatenate([features[:, :1], level], axis=1)
    change = features - level

    def add(total: jax.Array, part: jax.Array) -> tuple[jax.Array, None]:
        between = level + part.astype(features.dtype) * change
        grad = jax.grad(lambda x: run(x)[0])(between)
        return total + grad.astype(jnp.float32), None

    parts = (jnp.arange(STEPS) + 0.5) / STEPS  # the midpoint rule
    total, _ = jax.lax.scan(add, jnp.zeros(features.shape, jnp.float32), parts)
    found = jnp.sum(total / STEPS * change.astype(jnp.float32), axis=-1)
    if tokens:
        side = round(local.shape[1] ** 0.5)
        found = found[:, 1:].reshape(-1, side, side)
    return found * found.shape[1] * found.shape[2]


def _upsample(maps: jax.Array, size: int) -> jax.Array:
    return jax.image.resize(maps, (len(maps), size, size), "linear")


def _smooth(maps: jax.Array, sigma: float) -> jax.Array:
    """Gaussian smoothing of `[n, h, w]`, as if there were nothing outside."""
    reach = max(1, round(3 * sigma))
    kernel = jnp.exp(-jnp.square(jnp.arange(-reach, reach + 1)) / (2 * sigma**2))
    kernel = (kernel / kernel.sum())[:, None]
    x = maps[..., None]
    for shape in (kernel[..., None, None], kernel.T[..., None, None]):
        x = jax.lax.conv_general_dilated(
            x, shape, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC")
        )
    return x[..., 0]


class Explainer:
    """Heat maps of one model for one set of classes.

    Args:
        clip: the model.
        prompts: as for `Pretrained.classify`.

    Raises:
        ValueError: the prompts are not valid.
    """

    def __init__(self, clip: Pretrained, prompts: Prompts):
        self._clip = clip
        self._directions = class_directions(clip.class_embeddings(prompts))
        self._heat = make_heat_function(clip.graphdef)

    def __call__(
        self, squares: np.ndarray, classes: Sequence[int] | np.ndarray
    ) -> npt.NDArray[np.float32]:
        """Where each image shows its class rather than the others.

        Args:
            squares: uint8 `[n, size, size, 3]` from `Pretrained.preprocess`.
            classes: `n` of them, by number.

        Returns:
            float32 `[n, size, size]`, positive where the place speaks for the class, see
            `make_heat_function`.
        """
        directions = self._directions[np.asarray(classes, int)]
        step = self._clip.batch_size
        maps = [np.empty((0, *squares.shape[1:3]), np.float32)]
        for start in range(0, len(squares), step):
            chunk = squares[start : start + step]
            n = len(chunk)
            # Full batches, or a power of two, so that few shapes are compiled.
            room = [(0, min(step, 1 << (n - 1).bit_length()) - n)]
            image = np.pad(chunk, [*room, (0, 0), (0, 0), (0, 0)])
            direction = np.pad(directions[start : start + step], [*room, (0, 0)])
            maps.append(np.asarray(self._heat(self._clip.variables, image, direction))[:n])
        return np.concatenate(maps)


def overlay(image: npt.NDArray[np.uint8], heat: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """A photograph with the places that speak for the class laid over it.

    The picture is dimmed where there is no heat, and coloured from blue (a quarter of the highest
    heat) over green to yellow (the highest), colours that fundus photographs do not have.

    Args:
        image: uint8 RGB `[h, w, 3]`.
        heat: of any size, for the same field of view; what is negative is not shown.

    Returns:
        uint8 RGB `[h, w, 3]`; the dimmed image where no heat is positive.

    Raises:
        ValueError: the heat has a value that is not finite.
    """
    if not np.isfinite(heat).all():
        raise ValueError("the heat has a value that is not finite")
    height, width = image.shape[:2]
    large = cv2.resize(
        np.asarray(heat, np.float32), (width, height), interpolation=cv2.INTER_LINEAR
    )
    highest = float(large.max())
    level = np.clip(large / highest, 0, 1) if highest > 0 else np.zeros_like(large)
    table = cv2.applyColorMap(np.arange(256, dtype=np.uint8)[:, None], cv2.COLORMAP_VIRIDIS)
    colour = table[np.round(255 * level).astype(np.uint8), 0, ::-1].astype(np.float32)
    share = 0.55 * np.clip((level - 0.15) / 0.35, 0, 1)[..., None]
    mixed = (1 - share) * 0.8 * image + share * colour
    return np.round(mixed).astype(np.uint8)
