"""Channel statistics of OpenAI's CLIP (its `clip.py`, `_transform`), for RGB in [0, 1]."""

IMAGE_MEAN = (0.48145466, 0.4578275, 0.40821073)
IMAGE_STD = (0.26862954, 0.26130258, 0.27577711)
