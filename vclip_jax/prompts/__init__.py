"""Prompts: for every class of a dataset, what the text tower is asked.

The sets and their JSON form (`sets`), the order of grades (`order`), a model's own prompts (`own`),
and whether a tokenizer can read them (`reading`). It stands on `files`.
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
