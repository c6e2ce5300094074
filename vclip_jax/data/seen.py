"""What a model sees of a photograph."""

import numpy as np
import numpy.typing as npt
from ml_collections import ConfigDict

from vclip_jax.data.decode import decode
from vclip_jax.data.enhance import enhance
from vclip_jax.datasets.records import Record


def seen(record: Record, data: ConfigDict, size: int = 0) -> npt.NDArray[np.uint8]:
    """A photograph as a model gets it when it is evaluated, uint8 `[size, size, 3]`.

    Args:
        record: the photograph's.
        data: `config.data`.
        size: another than the model's.

    Raises:
        ImageError: it cannot be used; names the key.
    """
    image = decode(
        record["image"], size or data.image_size, data.fit, data.decode, key=record["key"]
    )
    return enhance(image) if data.enhance else image
