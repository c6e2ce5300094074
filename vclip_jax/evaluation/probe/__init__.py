"""Few-shot probes of a model's image embeddings: linear, adapters, retrieval; a command.

The values of its options are here, so that the command line is parsed without importing JAX.
"""

from typing import Final

METHODS: Final = ("zero_shot", "linear", "clip_adapter", "tip_adapter", "tip_adapter_f")
"""Names of the methods of `few_shot`."""
WITHOUT_PROMPTS: Final = ("linear",)
INVERSE_PENALTY: Final = 0.316
"""The default C of the linear probe: the value of CLIP's published example and of FLAIR's probe
(which, unlike this one, also weights classes by their rarity)."""
