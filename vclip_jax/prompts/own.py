"""The prompts that travel with a model: what it is asked where nobody says otherwise.

`prompts.json` in a run's workdir or a portable folder, written when the run starts: the prompts of
its first evaluation, else the names of its training data's classes.
"""

import dataclasses
import json
from pathlib import Path
from typing import Final

from vclip_jax.data.text.tokenizer import Tokenizer
from vclip_jax.files.writing import write_text
from vclip_jax.prompts import sets
from vclip_jax.prompts.reading import check_prompts, unknown_share
from vclip_jax.prompts.sets import PromptSet

FILE: Final = "prompts.json"
USUAL: Final = "zh/fives"
"""Asked of a model without prompts of its own, if its vocabulary is Chinese."""
MOST_UNKNOWN: Final = 0.1
"""Share of a prompt set's tokens above which a vocabulary is of another language."""


def reads(prompt_set: PromptSet, tokenizer: Tokenizer, length: int) -> bool:
    """Whether the prompts are words to a model, and their classes differ."""
    try:
        check_prompts(prompt_set, tokenizer, length)
    except ValueError:
        return False
    texts = [text for own in prompt_set.prompts for text in own]
    return unknown_share(texts, tokenizer)[0] <= MOST_UNKNOWN


def save(folder: Path, prompt_set: PromptSet | None) -> None:
    """Put the file in place whole, or take away that of another model."""
    if prompt_set is None:
        (folder / FILE).unlink(missing_ok=True)
        return
    write_text(folder / FILE, sets.dumps(prompt_set))


def load(folder: Path) -> PromptSet | None:
    """The prompts of the model in a folder; of a run of an earlier version, which has no such file,
    those of its first evaluation that the package has. None where they are not known.

    Raises:
        ValueError: one line: the file is damaged.
    """
    path = folder / FILE
    if path.is_file():
        found = sets.load(path)  # refuses what is no prompt set
        return dataclasses.replace(found, name=json.loads(path.read_text("utf-8"))["dataset"])
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        names = [entry["prompts"] for entry in config["evals"].values()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return next((sets.load(name) for name in names if name in sets.known()), None)
