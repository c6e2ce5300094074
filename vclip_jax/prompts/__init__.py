"""Prompts: the texts that the text tower embeds for each class of a dataset.

The sets and their JSON form (`sets`), the faults of that JSON (`faults`), the order of grades
(`order`), a model's own prompts (`own`), the calibration of answers (`calibration`), and a check
that a tokenizer can read the prompts (`reading`). This room imports `data` and `files`.
"""

from vclip_jax.prompts.sets import (
    Group,
    PromptSet,
    dumps,
    for_classes,
    from_phrases,
    known,
    labels_are_groups,
    load,
    parse,
)

__all__ = [
    "Group",
    "PromptSet",
    "dumps",
    "for_classes",
    "from_phrases",
    "known",
    "labels_are_groups",
    "load",
    "parse",
]
