"""Compare a model's figures between groups: by group, by gap, and by a permutation test.

A column of facts (camera, site, sex, age) parts the images into groups. Each group has its figures,
and a gap: its figure minus that of all other images. Both are resampled together, by patient. One
test a column asks whether the groups differ at all.
"""

import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import numpy.typing as npt

from vclip_jax.evaluation.metrics import bootstrap, classification
from vclip_jax.evaluation.metrics.classification import Floats, Ints

FIGURES: Final = ("auc", "balanced_accuracy", "accuracy", "ece")
"""The figures of a group."""
OVER_CLASSES: Final = ("auc", "balanced_accuracy")
"""Those that are means over classes, so that only groups of the same classes can be compared."""
SMALL: Final = 20
"""Images below which a group's figures say little: they stay out of the test."""
MOST_GROUPS: Final = 12
"""Groups of a column; the rarest beyond are "other"."""
PERMUTATIONS: Final = 2000
RESAMPLES: Final = 2000
_AGES: Final = (40, 60, 75)
"""Edges of the groups of an age in years."""
_AGE: Final = re.compile(
    r"0*(\d{1,3}(?:[.,]\d+)?) ?(?:y|yr|yrs|years?|岁|歲|周岁)?(?: old)?", re.IGNORECASE
)
_SEXES: Final = {
    word: sex
    for sex, words in (("female", "f female woman w 女 女性"), ("male", "m male man 男 男性"))
    for word in words.split()
}
_FEW_NUMBERS: Final = 8
"""Different numbers up to which each is a group of its own, such as grades of quality."""


def groups_of(values: Sequence[Any], column: str = "") -> list[str]:
    """Return the group of each image, "" where the value is unknown.

    Numbers become ranges: an age by the edges 40, 60 and 75 years, another number by thirds. An age
    may have a unit ("61岁", "61 y"), and the usual words for a sex become "female" and "male".

    Args:
      values: text or numbers; "" and negative numbers are unknown, and so are ages that are no
        numbers, if most are.
      column: the name of the fact.

    Examples:
        >>> from vclip_jax.evaluation.metrics.subgroups import groups_of
        >>> groups_of(["38", 61, "", "75.5", -1], "age")
        ['under 40', '60 to 74', '', '75 and over', '']
        >>> groups_of(["Topcon", "", "Zeiss"])
        ['Topcon', '', 'Zeiss']
    """
    texts = ["" if value is None else str(value).strip() for value in values]
    if column == "age":
        found = [_AGE.fullmatch(text) for text in texts]
        ages = [match[1].replace(",", ".") if match else "" for match in found]
        # A few cells such as "<60" or a year do not make a group of each age.
        texts = ages if 2 * sum(map(bool, ages)) > sum(map(bool, texts)) else texts
    if column == "sex":
        texts = [_SEXES.get(text.casefold(), text) for text in texts]
    numbers = [_number(text) for text in texts]
    known = [number for number, text in zip(numbers, texts, strict=True) if text]
    if known and all(math.isfinite(number) for number in known):
        finite = sorted({number for number in known if number >= 0})
        if column == "age" or len(finite) > _FEW_NUMBERS:
            edges = _AGES if column == "age" else _thirds([n for n in known if n >= 0])
            return [_range(number, edges) for number in numbers]
        return [f"{number:g}" if number >= 0 else "" for number in numbers]
    counts = Counter(text for text in texts if text)
    named = {text for text, _ in counts.most_common(MOST_GROUPS)}
    if len(counts) > MOST_GROUPS:
        named = {text for text, _ in counts.most_common(MOST_GROUPS - 1)}
    return [text if text in named or not text else "other" for text in texts]


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def _thirds(numbers: Sequence[float]) -> tuple[float, ...]:
    return tuple(dict.fromkeys(np.quantile(numbers, (1 / 3, 2 / 3)).tolist()))


def _range(number: float, edges: Sequence[float]) -> str:
    """Return the words of the range of a number; "" for NaN and negative numbers."""
    if not number >= 0:
        return ""
    place = sum(number >= edge for edge in edges)
    if place == 0:
        return f"under {edges[0]:g}"
    if place == len(edges):
        return f"{edges[-1]:g} and over"
    low, high = edges[place - 1], edges[place]
    whole = float(low).is_integer() and float(high).is_integer()
    return f"{low:g} to {high - 1:g}" if whole else f"{low:.4g} to {high:.4g}"


def by_fact(
    probabilities: Floats,
    labels: Ints,
    facts: Mapping[str, Sequence[str]],
    *,
    patients: Ints | None = None,
    resamples: int = RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Compute `by_group` for every fact that has at least two groups.

    Args:
      probabilities, labels, patients, resamples, seed: as for `by_group`.
      facts: fact -> its value for each image.

    Returns:
      Fact -> the result of `by_group`, and `p_holm`: p adjusted for the number of facts.
    """
    found: dict[str, Any] = {}
    for fact, values in facts.items():
        groups = groups_of(values, fact)
        if len(set(groups) - {""}) > 1:
            found[fact] = by_group(
                probabilities, labels, groups, patients=patients, resamples=resamples, seed=seed
            )
    adjusted = holm({fact: row["p"] for fact, row in found.items()})
    return {fact: {**row, "p_holm": adjusted[fact]} for fact, row in found.items()}


def by_group(
    probabilities: Floats,
    labels: Ints,
    groups: Sequence[str],
    *,
    patients: Ints | None = None,
    resamples: int = RESAMPLES,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> dict[str, Any]:
    """Compute the figures of each group, the gaps, and the test of a column.

    Args:
      probabilities: float `[n, c]`.
      labels: int `[n]`.
      groups: the group of each image, see `groups_of`; images without one are left out.
      patients: a number for the patient of each image, int `[n]`, as for
        `bootstrap.classification`.
      resamples: the number of resamples of the intervals.
      permutations: the number of permutations of the test.
      seed: the seed of both.

    Returns:
      `n` (images with a group), `groups` and `p`. A row of `groups` has `group`, `n`, `patients`,
      `small` (fewer than `SMALL` images), `images_per_class`, and for each of `FIGURES` the figure,
      `NAME_ci95`, `NAME_gap` and `NAME_gap_ci95`, None where not defined. Gaps of `OVER_CLASSES`
      are defined if the group and the other images have the same classes. `p` is that of
      `permutation_test`, None with fewer than two groups of a usable size.

    Raises:
      ValueError: as for `classification.checked`, or there is not a group for each image.
    """
    probabilities, labels = classification.checked(probabilities, labels)
    if len(groups) != len(labels):
        raise ValueError(f"expected a group for each of {len(labels)} images, got {len(groups)}")
    names = np.array(groups, object)
    known = names != ""
    people = np.arange(len(labels)) if patients is None else np.asarray(patients)
    probabilities, labels, names, people = (
        probabilities[known],
        labels[known],
        names[known],
        people[known],
    )
    rows = []
    for name in sorted(set(names.tolist()), key=_in_order):
        here = names == name
        row: dict[str, Any] = {
            "group": name,
            "n": int(here.sum()),
            "patients": len(np.unique(people[here])),
            "small": bool(here.sum() < SMALL),
            "images_per_class": np.bincount(
                labels[here], minlength=probabilities.shape[1]
            ).tolist(),
        }
        rows.append(row | _figures(probabilities, labels, here, people, resamples, seed))
    p = permutation_test(
        probabilities, labels, names.tolist(), patients=people, permutations=permutations, seed=seed
    )
    return {"n": int(known.sum()), "groups": rows, "p": p}


def _in_order(name: str) -> tuple[float, str]:
    """Sort ranges and numbers by their size, names by the alphabet, and "other" last."""
    if name.startswith("under "):
        return -1.0, name
    first = _number(name.split(" ")[0])
    if name == "other":
        return math.inf, name
    return (first if math.isfinite(first) else 0.0), name


def _figures(
    probabilities: Floats,
    labels: Ints,
    here: npt.NDArray[np.bool_],
    people: Ints,
    resamples: int,
    seed: int,
) -> dict[str, Any]:
    """Return the figures of one group against all other images."""
    sides = [here, ~here] if not here.all() else [here]
    points = [classification.classification(probabilities[s], labels[s]) for s in sides]
    drawn = [
        bootstrap.distributions(
            probabilities, labels, patients=people, within=side, resamples=resamples, seed=seed
        )
        for side in sides
    ]
    alike = len({tuple(np.unique(labels[side])) for side in sides}) == 1
    row: dict[str, Any] = {}
    for key in FIGURES:
        row[key] = points[0][key]
        row[f"{key}_ci95"] = None if row[key] is None else bootstrap.interval(drawn[0][key])
        both = len(sides) == 2 and None not in (row[key], points[1][key])
        both = both and (alike or key not in OVER_CLASSES)
        row[f"{key}_gap"] = row[key] - points[1][key] if both else None
        row[f"{key}_gap_ci95"] = bootstrap.interval(drawn[0][key] - drawn[1][key]) if both else None
    return row


def permutation_test(
    probabilities: Floats,
    labels: Ints,
    groups: Sequence[str],
    *,
    patients: Ints | None = None,
    permutations: int = PERMUTATIONS,
    seed: int = 0,
) -> float | None:
    """Test whether the groups have the same AUC.

    The statistic is the variance of the groups' AUCs, weighted by their images. Under the
    hypothesis, groups are exchangeable between patients with the same labels, and between images of
    a patient with one label, so they are permuted among those: each group keeps its number of
    images of each class (E. S. Edgington and P. Onghena, Randomization Tests, 2007, on restricted
    permutation). p is (1 + k) / (1 + permutations).

    Args:
      probabilities: float `[n, c]`.
      labels: int `[n]`.
      groups: the group of each image; "" and groups of fewer than `SMALL` images are left out.
      patients: a number for the patient of each image, int `[n]`.
      permutations: the number of permutations.
      seed: their seed.

    Returns:
      p, or None with fewer than two groups that have an AUC.
    """
    names, numbers = np.unique(np.array(groups, str), return_inverse=True)
    sizes = np.bincount(numbers)
    usable = [g for g, name in enumerate(names) if name and sizes[g] >= SMALL]
    here = np.isin(numbers, usable)
    people = np.arange(len(groups)) if patients is None else np.asarray(patients)
    scores, labels = np.asarray(probabilities)[here], np.asarray(labels)[here]
    numbers, people = numbers[here], people[here]
    seen = _statistic(scores, labels, numbers)
    if math.isnan(seen):
        return None
    rng = np.random.default_rng(seed)
    shuffle = _Shuffle(labels, numbers, people)
    reached = sum(
        not _statistic(scores, labels, shuffle.draw(rng)) < seen - 1e-12
        for _ in range(permutations)
    )
    return (1 + reached) / (1 + permutations)


class _Shuffle:
    """Draws groups anew: those of a patient go to another with the same labels."""

    def __init__(self, labels: Ints, groups: Ints, people: Ints):
        _, people = np.unique(people, return_inverse=True)
        order = np.lexsort((labels, people))  # a patient's images by their labels
        starts = np.flatnonzero(np.diff(people[order], prepend=-1))
        strata: dict[tuple[int, ...], list[Ints]] = {}
        for rows in np.split(order, starts[1:]):
            strata.setdefault(tuple(labels[rows].tolist()), []).append(rows)
        self.groups = groups
        self.strata = [(np.array(rows), np.array(key)) for key, rows in strata.items()]

    def draw(self, rng: np.random.Generator) -> Ints:
        """Return the groups of all images after one permutation, int `[n]`."""
        groups = self.groups.copy()
        for rows, labels in self.strata:  # [patients, images], [images]
            drawn = self.groups[rows[rng.permutation(len(rows))]]
            # Images of a patient with one label, such as both eyes, change their groups too.
            places = np.argsort(labels + rng.uniform(0, 0.5, rows.shape), axis=1)
            groups[rows] = np.take_along_axis(drawn, places, 1)
        return groups


def _statistic(scores: Floats, labels: Ints, groups: Ints) -> float:
    """Return the weighted variance of the groups' AUCs, NaN with fewer than two AUCs."""
    areas, weights = [], []
    for group in np.unique(groups):
        here = groups == group
        area = classification.auc(scores[here], labels[here])
        if area is not None:
            areas.append(area)
            weights.append(here.sum())
    if len(areas) < 2:
        return math.nan
    mean = np.average(areas, weights=weights)
    return float(np.average(np.square(np.array(areas) - mean), weights=weights))


def holm(p: Mapping[str, float | None]) -> dict[str, float | None]:
    """Adjust the p of several tests so that one false alarm among all has at most its probability.

    Source: S. Holm, Scandinavian Journal of Statistics 6 (1979) 65-70.

    Examples:
        >>> from vclip_jax.evaluation.metrics.subgroups import holm
        >>> holm({"camera": 0.01, "sex": 0.04, "age": 0.03, "site": None})
        {'camera': 0.03, 'sex': 0.06, 'age': 0.06, 'site': None}
    """
    known = sorted((value, name) for name, value in p.items() if value is not None)
    adjusted: dict[str, float | None] = dict.fromkeys(p)
    least = 0.0
    for rank, (value, name) in enumerate(known):
        least = max(least, min(1.0, (len(known) - rank) * value))
        adjusted[name] = least
    return adjusted
