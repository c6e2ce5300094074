"""Heat maps: the places in a photograph that favour a prompt, and overlays of them.

A heat map answers this question: how does the cosine with a class's prompts, minus the mean cosine
with the other classes' prompts, change if the features at one place of an inner layer are replaced
by those of the blurred image? Integrated gradients (M. Sundararajan, A. Taly and Q. Yan, ICML 2017,
arXiv:1703.01365) on the straight line from the blurred image's layer to the sharp image's layer
answer it for all places at once, and their sum is the difference between the two scores. The idea
that evidence is what blurring removes is from R. Fong and A. Vedaldi (ICCV 2017, arXiv:1704.03296).
The maps of two layers are averaged: for a ResNet, the inputs of the third and the fourth stage (the
last stage sees whole regions, in cells of 32 pixels, and the first stage only edges); for a Vision
Transformer, the patches' tokens after one third and after two thirds of its blocks.

Of the methods compared in `benchmarks/heat_maps.py`, which plants one lesion in a healthy eye and
tests whether the heat is highest there, this was the best. Projecting each position of the last
layer into the shared space, as B. Zhou et al. (CVPR 2016, arXiv:1512.04150) and MaskCLIP (C. Zhou
et al., ECCV 2022, arXiv:2112.01071) do, was right half as often. Gradients times activations
(HiResCAM, R. Draelos and L. Carin, arXiv:2011.08891) and LayerCAM (P.-T. Jiang et al., IEEE TIP
2021) were good for some lesions and poor for others. A heat map shows what influenced the model,
right or wrong. Not for diagnosis.
"""

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any

import cv2
import jax
import jax.numpy as jnp
import numpy as np
import numpy.typing as npt
from flax import nnx
from jax.sharding import NamedSharding
from jax.typing import ArrayLike

from vclip_jax.models.clip import normalise
from vclip_jax.models.vit import VisionTransformer
from vclip_jax.predict.pretrained import Pretrained, Prompts
from vclip_jax.predict.scorer import Variables

STEPS = 8
"""The number of points between the blurred image's layer and the sharp image's layer."""
OUT_OF_FOCUS = 1 / 16
"""The standard deviation of the image's blur, as a fraction of its side. Lesions and vessels
disappear; the illumination and, roughly, the disc and the macula remain."""
BLUR = 1 / 21
"""The standard deviation of the map's smoothing, as a fraction of the side: half a cell of 16
pixels at 224, so that neither the grid nor a single pixel dominates."""

HeatFunction = Callable[[Variables, ArrayLike, ArrayLike], jax.Array]


def class_directions(classes: npt.NDArray[np.floating]) -> npt.NDArray[np.float32]:
    """Return the direction of each class: its vector minus the mean of the other classes' vectors.

    Args:
        classes: the classes' vectors, float32 `[c, d]`, at least two.

    Returns:
        float32 `[c, d]`.

    Raises:
        ValueError: there is only one class.

    Examples:
        >>> import numpy as np
        >>> from vclip_jax.predict.heat_maps import class_directions
        >>> class_directions(np.eye(3)).tolist()
        [[1.0, -0.5, -0.5], [-0.5, 1.0, -0.5], [-0.5, -0.5, 1.0]]
    """
    count = len(classes)
    if count < 2:
        raise ValueError("a heat map compares a class with others: give at least two")
    others = (classes.sum(axis=0) - classes) / (count - 1)
    return np.asarray(classes - others, np.float32)


@lru_cache(maxsize=4)
def make_heat_function(
    graphdef: nnx.GraphDef, out_sharding: NamedSharding | None = None
) -> HeatFunction:
    """Return a jitted function that computes heat maps; `Explainer` is simpler to use.

    Args:
        graphdef: the model's structure, from `build.split_model`.
        out_sharding: the sharding of the maps; by default the compiler decides.

    Returns:
        A jitted function of the model's variables, images uint8 `[n, s, s, 3]` and directions
        float32 `[n, d]` (such as rows of `class_directions`). It returns float32 `[n, s, s]`: the
        contribution of each pixel to the cosine with the direction, times the number of pixels.
        The mean over an image is the difference between the scores of the sharp and the blurred
        image, except for heat that the smoothing moves over the border and, for a Vision
        Transformer, for what the class token has gathered in earlier blocks.
    """

    def heat(variables: Variables, images: jax.Array, directions: jax.Array) -> jax.Array:
        n, size = images.shape[:2]
        sharp = images.astype(jnp.float32)
        both = jnp.concatenate([sharp, _out_of_focus(sharp)])
        _, layers = _score(graphdef, variables, both, jnp.tile(directions, (2, 1)), {})
        maps = jnp.zeros((n, size, size))
        for place, layer in layers.items():

            def score(features: jax.Array, place: int = place) -> jax.Array:
                # Nothing uses the blocks before the layer then, and the compiler drops them.
                return _score(graphdef, variables, sharp, directions, {place: features})[0]

            contributions = integrated_gradients(score, layer[:n], layer[n:])
            maps += jax.image.resize(contributions, (n, size, size), "linear") / len(layers)
        return _smooth(maps, BLUR * size)

    return jax.jit(heat, out_shardings=out_sharding)


def integrated_gradients(
    score: Callable[[jax.Array], jax.Array], features: jax.Array, baseline: jax.Array
) -> jax.Array:
    """Return the contribution of each place to the change of the score from baseline to features.

    Args:
        score: a function of the features of all images, summed over the images.
        features, baseline: `[n, h, w, c]`; or a class token and a square of patches,
            `[n, 1 + h * h, c]`. The token, which has no place, is always that of the features.

    Returns:
        float32 `[n, h, w]`, summed over channels and times the number of places: the mean over
        places is the difference between an image's scores, by the midpoint rule with `STEPS`.
    """
    tokens = features.ndim == 3
    if tokens:
        baseline = jnp.concatenate([features[:, :1], baseline[:, 1:]], axis=1)
    change = features - baseline

    def add(total: jax.Array, part: jax.Array) -> tuple[jax.Array, None]:
        grad = jax.grad(score)(baseline + part.astype(features.dtype) * change)
        return total + grad.astype(jnp.float32), None

    parts = (jnp.arange(STEPS) + 0.5) / STEPS
    total, _ = jax.lax.scan(add, jnp.zeros(features.shape, jnp.float32), parts)
    sums = jnp.sum(total / STEPS * change.astype(jnp.float32), axis=-1)
    if tokens:
        side = round((sums.shape[1] - 1) ** 0.5)
        sums = sums[:, 1:].reshape(-1, side, side)
    return sums * sums.shape[1] * sums.shape[2]


class _Tap:
    """A wrapper of a block that stores the block's input, and may replace it."""

    def __init__(self, block: nnx.Module, replacement: jax.Array | None):
        self.block, self.replacement = block, replacement
        self.entered: jax.Array

    def __call__(self, x: jax.Array, **options: Any) -> jax.Array:
        self.entered = x
        return self.block(x if self.replacement is None else self.replacement, **options)


def _score(
    graphdef: nnx.GraphDef,
    variables: Variables,
    images: jax.Array,
    directions: jax.Array,
    replacements: dict[int, jax.Array],
) -> tuple[jax.Array, dict[int, jax.Array]]:
    """Return the sum of the cosines with the directions, and the layers by number.

    The layers are those of the module's docstring; `replacements` are used in their place.
    """
    model = nnx.merge(graphdef, *variables)
    taps = {}
    for number, (blocks, index) in enumerate(_places(model.visual)):
        taps[number] = blocks[index] = _Tap(blocks[index], replacements.get(number))
    score = jnp.sum(normalise(model.image_features(images)) * directions)
    return score, {number: tap.entered for number, tap in taps.items()}


def _places(visual: nnx.Module) -> list[tuple[nnx.List, int]]:
    """Return the blocks whose inputs are the layers: lists of blocks and positions in them."""
    if isinstance(visual, VisionTransformer):
        blocks = visual.transformer.resblocks
        return [(blocks, index) for index in sorted({len(blocks) // 3, 2 * len(blocks) // 3})]
    return [(visual.layer3, 0), (visual.layer4, 0)]


def _out_of_focus(images: jax.Array) -> jax.Array:
    """Blur images `[n, s, s, 3]` without darkening them at the border."""
    n, size = images.shape[:2]
    planes = jnp.moveaxis(images, 3, 1).reshape(-1, size, size)
    sigma = OUT_OF_FOCUS * size
    blurred = _smooth(planes, sigma) / _smooth(jnp.ones((1, size, size)), sigma)
    return jnp.moveaxis(blurred.reshape(n, 3, size, size), 1, 3)


def _smooth(maps: jax.Array, sigma: float) -> jax.Array:
    """Smooth `[n, h, w]` with a Gaussian, with zeros outside."""
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

    Examples:
        >>> from vclip_jax.predict.heat_maps import Explainer
        >>> explain = Explainer(clip, "zh/fives")
        >>> square = clip.preprocess(photograph)
        >>> explain(square[None], [3]).shape  # of class 3, glaucoma
        (1, 64, 64)
    """

    def __init__(self, clip: Pretrained, prompts: Prompts):
        self._clip = clip
        self._directions = class_directions(clip.class_embeddings(prompts))
        self._heat = make_heat_function(clip.graphdef)

    def __call__(
        self, squares: np.ndarray, classes: Sequence[int] | np.ndarray
    ) -> npt.NDArray[np.float32]:
        """Compute heat maps of images, each for one class against the others.

        Args:
            squares: uint8 `[n, size, size, 3]` from `Pretrained.preprocess`.
            classes: the numbers of `n` classes.

        Returns:
            float32 `[n, size, size]`, positive where a place favours the class, see
            `make_heat_function`.

        Examples:
            >>> from vclip_jax.predict.heat_maps import Explainer
            >>> square = clip.preprocess(photograph)
            >>> (heat,) = Explainer(clip, "zh/fives")(square[None], [3])
            >>> heat.shape, heat.dtype
            ((64, 64), dtype('float32'))
        """
        directions = self._directions[np.asarray(classes, int)]
        step = self._clip.batch_size
        maps = [np.empty((0, *squares.shape[1:3]), np.float32)]
        for start in range(0, len(squares), step):
            chunk = squares[start : start + step]
            n = len(chunk)
            # Pad to a full batch or a power of two, so that few shapes are compiled.
            room = [(0, min(step, 1 << (n - 1).bit_length()) - n)]
            image = np.pad(chunk, [*room, (0, 0), (0, 0), (0, 0)])
            direction = np.pad(directions[start : start + step], [*room, (0, 0)])
            maps.append(np.asarray(self._heat(self._clip.variables, image, direction))[:n])
        return np.concatenate(maps)


def overlay(image: npt.NDArray[np.uint8], heat: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """Lay a heat map over a photograph.

    The photograph is dimmed where there is no heat, and coloured from blue (a quarter of the
    highest heat) over green to yellow (the highest), colours that fundus photographs do not have.

    Args:
        image: uint8 RGB `[h, w, 3]`.
        heat: a map of any size, for the same field of view; negative heat is not shown.

    Returns:
        uint8 RGB `[h, w, 3]`; only dimmed if no heat is positive.

    Raises:
        ValueError: the heat has a value that is not finite.

    Examples:
        >>> import numpy as np
        >>> from vclip_jax.predict.heat_maps import overlay
        >>> picture = np.full((2, 2, 3), 100, np.uint8)
        >>> shown = overlay(picture, np.array([[1.0, 0.0], [-1.0, 0.0]]))
        >>> shown[0, 0].tolist(), shown[1, 0].tolist()  # the hottest place, and a cold one
        ([175, 163, 56], [80, 80, 80])
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


HEAT_SIDE = 512
"""The side of images with heat maps in pixels, unless the model's input is larger."""
