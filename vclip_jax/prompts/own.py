"""The prompts stored with a model, used if no others are given.

The file is `prompts.json` in a run's workdir or a portable folder, written when the run starts: the
prompts of its first evaluation, or else the names of its training data's classes.
"""

import dataclasses
from pathlib import Path
from typing import Final

from vclip_jax.data.text.tokenizer import Tokenizer
from vclip_jax.files.foreign import read_json
from vclip_jax.files.writing import write_text
from vclip_jax.prompts import sets
from vclip_jax.prompts.reading import check_prompts, unknown_share
from vclip_jax.prompts.sets import PromptSet

FILE: Final = "prompts.json"
USUAL: Final = "zh/fives"
"""The prompts of a model without its own, if its vocabulary is Chinese."""
MOST_UNKNOWN: Final = 0.1
"""Share of unknown tokens above which a vocabulary counts as that of another language."""


def reads(prompt_set: PromptSet, tokenizer: Tokenizer, length: int) -> bool:
    """Return whether a model's vocabulary has the words of the prompts, and the classes differ."""
    try:
        check_prompts(prompt_set, tokenizer, length)
    except ValueError:
        return False
    texts = [text for prompts in prompt_set.prompts for text in prompts]
    return unknown_share(texts, tokenizer)[0] <= MOST_UNKNOWN


def save(folder: Path, prompt_set: PromptSet | None) -> None:
    """Write the file in one step, or remove that of another model if there are no prompts."""
    if prompt_set is None:
        (folder / FILE).unlink(missing_ok=True)
        return
    write_text(folder / FILE, sets.dumps(prompt_set))


def load(folder: Path) -> PromptSet | None:
    """Return the prompts of the model in a folder, None if they are not known.

    A run of an earlier version has no such file: it gets the prompts of its first evaluation whose
    prompts come with the package.

    Raises:
        ValueError: one line: the file is damaged.
    """
    path = folder / FILE
    if path.is_file():
        prompt_set = sets.load(path)  # raises if the file is no prompt set
        return dataclasses.replace(prompt_set, name=read_json(path)["dataset"])
    try:
        config = read_json(folder / "config.json", constants=True)
        names = [entry["prompts"] for entry in config["evals"].values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return next((sets.load(name) for name in names if name in sets.known()), None)
