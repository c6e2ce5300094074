"""Drawn eyes, and two sources that share some of them."""

import pytest
import simplejpeg

from vclip_jax.datasets.synthetic.record import record

from .photographs import entry, jpeg

SIZE = 224


@pytest.fixture(scope="session")
def eyes():
    """Ten different eyes, uint8 RGB."""
    images = [record("messidor_like", SIZE, 0, index)["image"] for index in range(10)]
    return [simplejpeg.decode_jpeg(image, "RGB") for image in images]


@pytest.fixture
def sources(eyes):
    """A holds eyes 0 to 7; B 8 and 9, a byte copy of 3, and 5 mirrored and encoded again."""
    a = [entry(jpeg(eye), f"a{index}") for index, eye in enumerate(eyes[:8])]
    b = [entry(jpeg(eye), f"b{index}") for index, eye in enumerate(eyes[8:], 8)]
    b.append(entry(a[3]["image"], "copy"))
    b.append(entry(jpeg(eyes[5][:, ::-1], 60), "mirror"))
    return a, b
