"""What the demo answers, as functions of a model, a photograph and words."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from vclip_jax.data.images.decode import ImageError
from vclip_jax.demo.index import Hit, Index, nearest
from vclip_jax.demo.reader import Pixels, pixels
from vclip_jax.evaluation import prompt_sensitivity
from vclip_jax.predict.heat_maps import HEAT_SIDE, class_directions, make_heat_function, overlay
from vclip_jax.predict.pretrained import Pretrained
from vclip_jax.predict.scorer import class_means, class_probabilities
from vclip_jax.prompts import PromptSet, from_phrases
from vclip_jax.prompts.reading import unknown_share

MOST_MEGABYTES = 20
"""Of a file that is uploaded. How many pixels it may have, `decode.MAX_PIXELS` says."""
MOST_CLASSES = 40
MOST_WORDINGS = 20
MOST_PROMPTS = 200
"""Of all classes together: 5 s of a RoBERTa-base on a CPU, during which other visitors wait."""
MOST_CHARACTERS = 300
"""Of one prompt; what is beyond the model's context length does not count anyway."""
MIDDLE = 0.05, 0.95
"""Quantiles of the interval over wordings."""


@dataclass(frozen=True)
class Photograph:
    """The pixels of an upload, and nothing else of it.

    Attributes:
        square: what the image tower sees, uint8 `[size, size, 3]`.
        picture: the same field of view for people, uint8 `[side, side, 3]`.
        embedding: unit vector float32 `[d]`.
    """

    square: npt.NDArray[np.uint8]
    picture: npt.NDArray[np.uint8]
    embedding: npt.NDArray[np.float32]


@dataclass(frozen=True)
class Score:
    """A class (or a group of classes) and how far it depends on the words.

    Attributes:
        name: of the class.
        probability: with all its wordings.
        low, high: 5 and 95 % of the wordings taken one by one give less than this.
        first: share of the wordings with which it is the most probable.
    """

    name: str
    probability: float
    low: float
    high: float
    first: float


@dataclass(frozen=True)
class Answer:
    """The scores of a photograph.

    Attributes:
        prompts: what was asked.
        classes: a score for each class, in the prompts' order.
        groups: likewise for each group, if the prompt set has some.
        wordings: choices of one wording a class, behind the intervals; with 1 they are empty.
        notes: what the model does not read of the prompts, a sentence each.
    """

    prompts: PromptSet
    classes: tuple[Score, ...]
    groups: tuple[Score, ...]
    wordings: int
    notes: tuple[str, ...] = ()

    @property
    def best(self) -> int:
        """The number of the most probable class."""
        return int(np.argmax([score.probability for score in self.classes]))


def read_photograph(
    clip: Pretrained, data: bytes, read: Callable[..., Pixels] = pixels
) -> Photograph:
    """Decode an upload. The result holds pixels alone: metadata ends here.

    Args:
        clip: the model.
        data: the file's content.
        read: `reader.pixels`, or what calls it elsewhere.

    Raises:
        ImageError: one line: it is too large, or no image that can be read.
    """
    if len(data) > MOST_MEGABYTES * 2**20:
        raise ImageError(
            f"this file has {len(data) / 2**20:.1f} MB, more than the {MOST_MEGABYTES} allowed"
        )
    settings = clip.config["data"]
    side = max(HEAT_SIDE, settings["image_size"])
    square, picture = read(data, side, settings)
    return Photograph(square, picture, clip.embed(square[None])[0])


def typed_prompts(text: str) -> PromptSet:
    """The prompts that somebody typed: a class a line, and `|` between wordings of one class.

    A class is called as its first wording.

    Raises:
        ValueError: one line: fewer than two classes, or what is wrong with which line.
    """
    lines = [line.strip() for line in text.splitlines()]
    classes: dict[str, list[str]] = {}
    for number, line in enumerate(lines, 1):
        wordings = [w for part in re.split("[|｜]", line) if (w := " ".join(part.split()))]
        if not wordings:
            continue
        if max(map(len, wordings)) > MOST_CHARACTERS or len(wordings) > MOST_WORDINGS:
            raise ValueError(
                f"line {number} is too long: at most {MOST_WORDINGS} wordings of "
                f"{MOST_CHARACTERS} characters"
            )
        if len(set(wordings)) < len(wordings):
            raise ValueError(f"line {number} has a wording twice")
        if wordings[0] in classes:
            raise ValueError(f"line {number} begins as another line does: {wordings[0]}")
        classes[wordings[0]] = wordings
    if len(classes) < 2:
        raise ValueError("type at least two prompts, one a line: each is held against the others")
    if len(classes) > MOST_CLASSES:
        raise ValueError(f"these are {len(classes)} lines, more than the {MOST_CLASSES} allowed")
    count = sum(map(len, classes.values()))
    if count > MOST_PROMPTS:
        raise ValueError(f"these are {count} wordings, more than the {MOST_PROMPTS} allowed")
    return from_phrases(classes, "typed")


def score(clip: Pretrained, photograph: Photograph, prompts: PromptSet) -> Answer:
    """How the classes compare on a photograph, and how far that depends on the wording."""
    parts = _prompt_embeddings(clip, prompts)
    classes = class_means(parts, prompts.renormalise)
    together = np.asarray(
        class_probabilities(photograph.embedding[None], classes, clip.logit_scale)
    )
    apart = prompt_sensitivity.answers(
        photograph.embedding[None], parts, prompts, clip.logit_scale, "single"
    )[:, 0]
    return Answer(
        prompts=prompts,
        classes=_scores(prompts.class_names, together[0], apart),
        groups=_scores(prompts.label_names, prompts.group(together)[0], prompts.group(apart))
        if prompts.groups
        else (),
        wordings=len(apart),
        notes=tuple(clip.readings(prompts)),
    )


def _scores(
    names: Sequence[str], together: npt.NDArray[np.floating], apart: npt.NDArray[np.floating]
) -> tuple[Score, ...]:
    """Of probabilities `[c]` and, wording by wording, `[w, c]`."""
    low, high = np.quantile(apart, MIDDLE, axis=0)
    first = np.bincount(apart.argmax(axis=1), minlength=len(names)) / len(apart)
    columns = zip(names, together, low, high, first, strict=True)
    return tuple(Score(name, *map(float, values)) for name, *values in columns)


def heat(
    clip: Pretrained, photograph: Photograph, prompts: PromptSet, chosen: int
) -> npt.NDArray[np.uint8]:
    """The picture with the places that speak for a class rather than the others: `[side, side, 3]`.

    Args:
        clip, photograph: the model and what it is asked about.
        prompts: at least two classes.
        chosen: the number of the class.
    """
    classes = class_means(_prompt_embeddings(clip, prompts), prompts.renormalise)
    direction = class_directions(classes)[chosen]
    function = make_heat_function(clip.graphdef)
    found = function(clip.variables, photograph.square[None], direction[None])
    return overlay(photograph.picture, np.asarray(found)[0])


def search(clip: Pretrained, text: str, index: Index, count: int) -> list[Hit]:
    """The photographs that a text fits best.

    Raises:
        ValueError: one line: there is no text, or too much.
    """
    query = " ".join(text.split())
    if not query:
        raise ValueError("type what to look for")
    if len(query) > MOST_CHARACTERS:
        raise ValueError(f"the text is longer than {MOST_CHARACTERS} characters")
    if unknown_share([query], clip.tokenizer)[0] == 1:
        raise ValueError("the model's vocabulary has none of these words: search in its language")
    return nearest(index, clip.encode_text([query], quiet=True)[0], count)  # the page says it


@lru_cache(maxsize=16)
def _prompt_embeddings(clip: Pretrained, prompts: PromptSet) -> list[npt.NDArray[np.float32]]:
    return clip.prompt_embeddings(prompts)
