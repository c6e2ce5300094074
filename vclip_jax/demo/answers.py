"""The answers of the demo, as functions of a model, a photograph and words."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from vclip_jax.data.images.opening import ImageError
from vclip_jax.demo.index import Hit, Index, nearest
from vclip_jax.demo.reader import Pixels, pixels
from vclip_jax.evaluation import prompt_sensitivity
from vclip_jax.predict.heat_maps import HEAT_SIDE, class_directions, make_heat_function, overlay
from vclip_jax.predict.pretrained import Pretrained
from vclip_jax.predict.scorer import class_means, class_probabilities
from vclip_jax.prompts import PromptSet, from_phrases
from vclip_jax.prompts.calibration import Calibration
from vclip_jax.prompts.reading import unknown_share

MOST_MEGABYTES = 20
"""The largest upload; `decode.MAX_PIXELS` limits its pixels."""
MOST_CLASSES = 40
MOST_WORDINGS = 20
MOST_PROMPTS = 200
"""The largest number of prompts of all classes together: a RoBERTa-base on a CPU takes 5 s for
them, during which other visitors wait."""
MOST_CHARACTERS = 300
"""The longest prompt; the model does not read beyond its context length anyway."""
MIDDLE = 0.05, 0.95
"""The quantiles of the interval over wordings."""


@dataclass(frozen=True)
class Photograph:
    """The pixels of an upload, without its metadata.

    Attributes:
        square: the image tower's input, uint8 `[size, size, 3]`.
        picture: the same field of view for people, uint8 `[side, side, 3]`.
        embedding: unit vector float32 `[d]`.
        gate: the reasons to refuse the photograph, see `data.images.gate`.
    """

    square: npt.NDArray[np.uint8]
    picture: npt.NDArray[np.uint8]
    embedding: npt.NDArray[np.float32]
    gate: tuple[str, ...] = ()


@dataclass(frozen=True)
class Score:
    """The score of a class (or a group of classes), and its dependence on the wording.

    Attributes:
        name: the name of the class.
        probability: the probability with all wordings.
        low, high: the 5 % and 95 % quantiles over single wordings.
        first: the share of wordings with which the class is the most probable.
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
        prompts: the prompts.
        classes: a score for each class, in the prompts' order.
        groups: a score for each group, if the prompt set has groups.
        wordings: the number of choices of one wording per class; with 1 the intervals are empty.
        notes: sentences about parts of the prompts that the model does not read.
        calibration: the calibration of the scores, or None.
        gate: the reasons to refuse the photograph, see `data.images.gate`.
    """

    prompts: PromptSet
    classes: tuple[Score, ...]
    groups: tuple[Score, ...]
    wordings: int
    notes: tuple[str, ...] = ()
    calibration: Calibration | None = None
    gate: tuple[str, ...] = ()

    @property
    def best(self) -> int:
        """Return the number of the most probable class."""
        return int(np.argmax([score.probability for score in self.classes]))


def read_photograph(
    clip: Pretrained, data: bytes, read: Callable[..., Pixels] = pixels
) -> Photograph:
    """Decode an upload to pixels, without metadata.

    Args:
        clip: the model.
        data: the file's content.
        read: `reader.pixels`, or a function that calls it in another process.

    Raises:
        ImageError: one line: the file is too large, or cannot be read as an image.
    """
    if len(data) > MOST_MEGABYTES * 2**20:
        raise ImageError(
            f"this file has {len(data) / 2**20:.1f} MB, more than the {MOST_MEGABYTES} allowed"
        )
    settings = clip.config["data"]
    side = max(HEAT_SIDE, settings["image_size"])
    square, picture, refused = read(data, side, settings)
    return Photograph(square, picture, clip.embed(square[None])[0], refused)


def typed_prompts(text: str) -> PromptSet:
    """Parse typed prompts: one class per line, and `|` between wordings of a class.

    The name of a class is its first wording.

    Raises:
        ValueError: one line: there are fewer than two classes, or a line is not valid.
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
            raise ValueError(f"line {number} begins like another line: {wordings[0]}")
        classes[wordings[0]] = wordings
    if len(classes) < 2:
        raise ValueError(
            "type at least two prompts, one per line: they are compared with each other"
        )
    if len(classes) > MOST_CLASSES:
        raise ValueError(f"these are {len(classes)} lines, more than the {MOST_CLASSES} allowed")
    count = sum(map(len, classes.values()))
    if count > MOST_PROMPTS:
        raise ValueError(f"these are {count} wordings, more than the {MOST_PROMPTS} allowed")
    return from_phrases(classes, "typed")


def score(
    clip: Pretrained,
    photograph: Photograph,
    prompts: PromptSet,
    calibration: Calibration | None = None,
) -> Answer:
    """Score the classes on a photograph, with intervals over the wordings, all calibrated."""
    parts = _prompt_embeddings(clip, prompts)
    classes = class_means(parts, prompts.renormalise)
    together = np.asarray(
        class_probabilities(photograph.embedding[None], classes, clip.logit_scale)
    )
    together = together if calibration is None else calibration.apply(together)
    apart = prompt_sensitivity.answers(
        photograph.embedding[None], parts, prompts, clip.logit_scale, "single", calibration
    )[:, 0]
    return Answer(
        prompts=prompts,
        classes=_scores(prompts.class_names, together[0], apart),
        groups=_scores(prompts.label_names, prompts.group(together)[0], prompts.group(apart))
        if prompts.groups
        else (),
        wordings=len(apart),
        notes=tuple(clip.readings(prompts)),
        calibration=calibration,
        gate=photograph.gate,
    )


def _scores(
    names: Sequence[str], together: npt.NDArray[np.floating], apart: npt.NDArray[np.floating]
) -> tuple[Score, ...]:
    """Return the scores from probabilities with all wordings `[c]`, and with each `[w, c]`."""
    low, high = np.quantile(apart, MIDDLE, axis=0)
    first = np.bincount(apart.argmax(axis=1), minlength=len(names)) / len(apart)
    columns = zip(names, together, low, high, first, strict=True)
    return tuple(Score(name, *map(float, values)) for name, *values in columns)


def heat(
    clip: Pretrained, photograph: Photograph, prompts: PromptSet, chosen: int
) -> npt.NDArray[np.uint8]:
    """Return the photograph with a heat map for a class against the others, `[side, side, 3]`.

    Args:
        clip, photograph: the model and the photograph.
        prompts: prompts of at least two classes.
        chosen: the number of the class.
    """
    classes = class_means(_prompt_embeddings(clip, prompts), prompts.renormalise)
    direction = class_directions(classes)[chosen]
    function = make_heat_function(clip.graphdef)
    maps = function(clip.variables, photograph.square[None], direction[None])
    return overlay(photograph.picture, np.asarray(maps)[0])


def search(clip: Pretrained, text: str, index: Index, count: int) -> list[Hit]:
    """Return the photographs that fit a text best.

    Raises:
        ValueError: one line: the text is empty, too long, or has no known word.
    """
    query = " ".join(text.split())
    if not query:
        raise ValueError("type what to look for")
    if len(query) > MOST_CHARACTERS:
        raise ValueError(f"the text is longer than {MOST_CHARACTERS} characters")
    if unknown_share([query], clip.tokenizer)[0] == 1:
        raise ValueError("the model's vocabulary has none of these words: search in its language")
    # Quiet, because the page shows unknown words.
    return nearest(index, clip.encode_text([query], quiet=True)[0], count)


@lru_cache(maxsize=16)
def _prompt_embeddings(clip: Pretrained, prompts: PromptSet) -> list[npt.NDArray[np.float32]]:
    return clip.prompt_embeddings(prompts)
