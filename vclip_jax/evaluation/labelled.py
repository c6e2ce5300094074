"""Choose the prompts for a built dataset, and number its labels like their classes."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from vclip_jax import prompts
from vclip_jax.predict.embeddings import SplitEmbeddings
from vclip_jax.predict.pretrained import Pretrained


def prompts_for(
    clip: Pretrained, names: Sequence[str], dataset: str, given: str | None
) -> prompts.PromptSet:
    """Return the checked prompts for a dataset's classes.

    Args:
        clip: the model; its default prompts are used if they are for these classes.
        names: the names of the dataset's labels.
        dataset: the name of the dataset; `zh/DATASET` is used otherwise.
        given: the name of a prompt set or file, used in place of both.

    Raises:
        ValueError: one line: there are no prompts for these classes, or the model cannot read them.
    """
    default = clip.prompts
    if given is None and default is not None and set(default.class_names) == set(names):
        return clip.asked(default)
    return clip.asked(prompts.for_classes(given or usual_prompts(dataset), names, dataset))


def usual_prompts(dataset: str) -> str:
    """Return zh/fives for "fives", "fives/512px-q92" and "synthetic/fives_like-128px-600-s1"."""
    name, _, config = dataset.partition("/")
    return f"zh/{config.partition('_like')[0] if name == 'synthetic' else name}"


def renumbered(split: SplitEmbeddings, prompt_set: prompts.PromptSet | None) -> SplitEmbeddings:
    """Return the same images, with labels that follow the prompts' order of classes."""
    if prompt_set is None or not split.class_names:
        return split
    numbers = prompt_set.numbers(split.class_names)
    return replace(split, labels=np.where(split.labels >= 0, numbers[split.labels], -1))
