"""Few-shot probes of a model's image embeddings: linear, adapters, retrieval; a command.

What its options may be stands here, so that the command line is read before JAX is imported.
"""

from typing import Final

METHODS: Final = ("zero_shot", "linear", "clip_adapter", "tip_adapter", "tip_adapter_f")
"""Names of the methods of `few_shot`."""
WITHOUT_PROMPTS: Final = ("linear",)
INVERSE_PENALTY: Final = 0.316
"""Of the linear probe: the value of CLIP's published example and of FLAIR's probe (which, unlike
this one, also weighs classes by their rarity)."""
