"""The decoding of uploads in separate processes, with limits of time and memory.

A picture that takes long, or that crashes a decoder, affects neither the page nor the next
visitor's picture. The processes import this module, so it must not import JAX.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vclip_jax.data.images import guarded
from vclip_jax.data.images.decode import read_rgb
from vclip_jax.data.images.fit import fit_square
from vclip_jax.data.images.gate import judge
from vclip_jax.data.images.opening import ImageError
from vclip_jax.data.images.preprocess import preprocess_pixels

Pixels = tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8], tuple[str, ...]]

LIMITS: Final = guarded.Limits(seconds=20)
"""The limits of decoding an upload; 80 million pixels of PNG take 3 s on one core."""


def pixels(data: bytes, side: int, settings: Mapping[str, Any]) -> Pixels:
    """Return the model's view of a file, a picture of the same field for people, and a judgement.

    Args:
        data: the file's content.
        side: the side of the picture for people, in pixels.
        settings: the model's `data`, as used by `Pretrained.preprocess`.

    Returns:
        uint8 `[size, size, 3]` and `[side, side, 3]`, and the reasons of `gate.judge`.

    Raises:
        ImageError: one line.
    """
    rgb = read_rgb(data, key="this file")
    return preprocess_pixels(rgb, settings), fit_square(rgb, side, settings["fit"]), judge(rgb)


def guard(function: Callable[..., Any], *arguments: Any, limits: guarded.Limits = LIMITS) -> Any:
    """Call `function(*arguments)` in another process, see `guarded.call`.

    Raises:
        ImageError: one line: the function's own error, or it exceeded `limits` or crashed.
    """
    try:
        answer = guarded.call(_answer, function, arguments, limits=limits)
    except (guarded.Fault, OSError) as error:
        raise ImageError(f"this file: {error}") from None
    if isinstance(answer, ImageError):
        raise answer
    return answer


def _answer(function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
    try:
        with guarded.limited():
            return function(*arguments)
    except ImageError as error:
        return error
    except Exception as error:  # visitors must not see its text
        return ImageError(f"this file: {type(error).__name__}")
