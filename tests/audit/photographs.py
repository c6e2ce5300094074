"""Records and a model made up for what compares photographs."""

import numpy as np
import simplejpeg


def jpeg(rgb, quality=95):
    return simplejpeg.encode_jpeg(np.ascontiguousarray(rgb), quality, "RGB")


def entry(image, key):
    return {"image": image, "caption": "眼底", "key": key, "label": -1}


class Model:
    """Embeds a picture as the mean of its colour channels."""

    def encode_image(self, images):
        means = np.array([image.mean(axis=(0, 1)) for image in images], np.float32).reshape(-1, 3)
        return means / np.linalg.norm(means, axis=1, keepdims=True)
