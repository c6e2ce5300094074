"""A miniature of IDRiD's disease-grading folder."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

_TRAIN = "a. Training Set", "a. IDRiD_Disease Grading_Training Labels.csv"
_TEST = "b. Testing Set", "b. IDRiD_Disease Grading_Testing Labels.csv"


def _photograph(index: int) -> bytes:
    exif = Image.Exif()
    exif[0x010E] = "patient name"
    rng = np.random.Generator(np.random.Philox(index))
    pixels = np.kron(rng.integers(0, 256, (6, 9, 3)), np.ones((8, 8, 1))).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=90, exif=exif, comment=b"patient name")
    return buffer.getvalue()


def _write(root: Path, train: int = 20, test: int = 0) -> Path:
    for (images, labels), count, first in ((_TRAIN, train, 0), (_TEST, test, 1000)):
        if not count:
            continue
        folder = root / "B. Disease Grading" / "1. Original Images" / images
        table = root / "B. Disease Grading" / "2. Groundtruths" / labels
        folder.mkdir(parents=True)
        table.parent.mkdir(parents=True, exist_ok=True)
        lines = ["Image name,Retinopathy grade,Risk of macular edema ,,,,,,,,,"]
        for index in range(count):
            name = f"IDRiD_{index + 1:03}"
            (folder / f"{name}.jpg").write_bytes(_photograph(first + index))
            lines.append(f"{name},{index % 5},{index % 3},,,,,,,,,")
        table.write_bytes("".join(f"{line}\r\n" for line in lines).encode())
    return root


@pytest.fixture(scope="session")
def write_idrid() -> Callable[..., Path]:
    """Writes the folder into a root, which it returns; `train` and `test` count the images.

    Image i (from 0) has retinopathy grade i % 5, risk of oedema i % 3, and metadata.
    """
    return _write
