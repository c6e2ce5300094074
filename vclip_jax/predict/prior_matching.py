"""Prior matching: set offsets, without labels, that make the mean answer a stated prevalence.

A model may favour one class on all photographs of a site that differs from its training data. If
the prevalence of the classes at the site is known, an offset for each class makes the mean of the
calibrated probabilities equal to this prevalence. The offsets are a fixed point: the logarithm of
(stated / mean) is added to each offset until nothing changes. The iteration is matrix scaling: the
rows of exp(logits) are scaled to 1, the columns to the prevalence (R. Sinkhorn and P. Knopp,
Pacific J. Math. 21 (1967) 343-348; W. Deming and F. Stephan, Ann. Math. Stat. 11 (1940) 427-444).
For positive numbers it converges from any start to one solution up to a constant: the minimum of
the convex function mean(logsumexp(logits + b)) - prevalence b.

The EM algorithm of M. Saerens, P. Latinne and C. Decaestecker, Neural Computation 14 (2002) 21-41,
is another method: it estimates an unknown prevalence, and assumes that the model is calibrated on
its training data. Prior matching assumes only that the model ranks the photographs. The result has
the stated prevalence, even if the statement is wrong.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.special import log_softmax, logsumexp

from vclip_jax.datasets.own.names import finding
from vclip_jax.prompts import PromptSet
from vclip_jax.prompts.calibration import PREVALENCE, Calibration, calibrated, digest_of

Floats = npt.NDArray[np.floating]

LEAST: Final = 20
"""The least number of photographs for a mean."""
FEW: Final = 100
"""The number of photographs below which a note calls them few."""
TOLERANCE: Final = 1e-8
"""The tolerance of the mean probabilities."""
MOST_ROUNDS: Final = 100_000
MOST_CHANGED: Final = 0.1
"""The share of changed answers above which a note warns of the stated prevalence."""
_TINY: Final = 1e-38


def match(
    probabilities: Floats, prevalence: Floats, start: Floats | None = None
) -> npt.NDArray[np.float64]:
    """Return offsets `[c]`, of sum 0, that make the mean of the probabilities the prevalence.

    Args:
        probabilities: `[n, c]`, for the photographs of a site.
        prevalence: `[c]`, above 0, of sum 1.
        start: the first offsets; the result does not depend on them.

    Raises:
        ValueError: one line: the iteration does not end, as the model is too sure of its answers.

    Examples:
        >>> import numpy as np
        >>> from vclip_jax.predict.prior_matching import match
        >>> from vclip_jax.prompts.calibration import calibrated
        >>> answers = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
        >>> offsets = match(answers, np.array([0.4, 0.6]))
        >>> calibrated(answers, 1.0, offsets).mean(axis=0).round(3).tolist()
        [0.4, 0.6]
    """
    logits = np.log(np.maximum(np.asarray(probabilities, np.float64), _TINY))
    wanted = np.log(np.asarray(prevalence, np.float64))
    offsets = np.zeros(len(wanted)) if start is None else np.array(start, np.float64)
    for _ in range(MOST_ROUNDS):
        means = logsumexp(log_softmax(logits + offsets, axis=1), axis=0) - np.log(len(logits))
        if np.abs(np.exp(means) - np.exp(wanted)).max() < TOLERANCE:
            return offsets - offsets.mean()
        offsets += wanted - means
    raise ValueError(
        "no offsets make the mean answer the stated prevalence, as the model is too sure of its "
        "answers: calibrate it with labels (vclip calibrate --shots)"
    )


@dataclass(frozen=True)
class Dependence:
    """The dependence of the answers on the stated prevalence of a class."""

    name: str
    halved: float
    """The share of answers that change if the class has half the stated odds."""
    doubled: float
    """The share of answers that change if the class has twice the stated odds."""

    @property
    def worst(self) -> float:
        """Return the larger share."""
        return max(self.halved, self.doubled)


def dependence(
    probabilities: Floats, prevalence: Floats, offsets: Floats, names: Sequence[str]
) -> tuple[Dependence, ...]:
    """Count, for each class, the answers that change with half and with twice its stated odds.

    The other classes keep their proportions. Odds are used, as twice a share may exceed 1.

    Args:
        probabilities, prevalence: as for `match`.
        offsets: the result of `match`.
        names: the names of the classes.

    Examples:
        >>> import numpy as np
        >>> from vclip_jax.predict.prior_matching import dependence, match
        >>> answers = np.array([[0.9, 0.1], [0.8, 0.2], [0.3, 0.7]])
        >>> stated = np.array([0.6, 0.4])
        >>> no, yes = dependence(answers, stated, match(answers, stated), ["no", "yes"])
        >>> no.doubled == yes.halved
        True
    """
    stated = np.asarray(prevalence, np.float64)
    answers = calibrated(probabilities, 1, offsets).argmax(axis=1)

    def changed(c: int, factor: float) -> float:
        weights = stated.copy()
        weights[c] *= factor
        other = match(probabilities, weights / weights.sum(), offsets)
        return float(np.mean(calibrated(probabilities, 1, other).argmax(axis=1) != answers))

    return tuple(Dependence(name, changed(c, 0.5), changed(c, 2.0)) for c, name in enumerate(names))


def by_class(stated: Mapping[str, float], class_names: Sequence[str]) -> npt.NDArray[np.float64]:
    """Return the stated prevalence in the order of the classes, `[c]`, of sum 1.

    A class is named by its name, by a common short name (amd, dr, 青光眼), or by the beginning of
    its name, if no other class fits. One class may be left out and gets the rest.

    Args:
        stated: class name -> share.
        class_names: the names of the classes.

    Raises:
        ValueError: one line: a name fits no class, or several, or the sum is not 1.

    Examples:
        >>> from vclip_jax.predict.prior_matching import by_class
        >>> by_class({"amd": 0.1}, ["normal", "age-related macular degeneration"]).tolist()
        [0.9, 0.1]
    """
    values: dict[int, float] = {}
    for name, value in stated.items():
        number = _number_of(name, class_names)
        if number in values:
            raise ValueError(f"the prevalence names {class_names[number]!r} twice")
        values[number] = value
    total = sum(values.values())
    missing = [c for c in range(len(class_names)) if c not in values]
    if len(missing) == 1 and total < 1:
        values[missing[0]] = 1 - total
    elif missing:
        raise ValueError(
            f"the prevalence lacks {', '.join(class_names[c] for c in missing)}: state all "
            "classes, or all but one"
        )
    elif abs(total - 1) > 0.005:
        raise ValueError(f"the prevalence adds up to {total:g} instead of 1")
    found = np.array([values[c] for c in range(len(class_names))])
    return found / found.sum()


def _number_of(name: str, class_names: Sequence[str]) -> int:
    wanted = finding(name)
    for meant in (
        [c for c, own in enumerate(class_names) if own == name],
        [c for c, own in enumerate(class_names) if finding(own) == wanted],
        [c for c, own in enumerate(class_names) if _plain(own).startswith(_plain(name))],
    ):
        if len(meant) == 1:
            return meant[0]
        if meant:
            break
    what = "fits several of" if meant else "is none of"
    raise ValueError(f"the prevalence's {name!r} {what} the classes {', '.join(class_names)}")


def _plain(name: str) -> str:
    return re.sub(r"[\s_-]+", " ", name.casefold()).strip()


def calibrate(
    probabilities: Floats,
    stated: Mapping[str, float],
    prompt_set: PromptSet,
    *,
    model: str,
    data: str,
    temperature: float = 1.0,
) -> tuple[Calibration, tuple[Dependence, ...]]:
    """Return the calibration of a site, and the dependence of its answers on the statement.

    Args:
        probabilities: `[n, classes]`, not calibrated, for the site's photographs.
        stated: class name -> share, see `by_class`.
        prompt_set: the prompts.
        model: the model's digest.
        data: the name of the photographs.
        temperature: the temperature that is applied first.

    Raises:
        ValueError: one line: there are fewer than `LEAST` photographs, or as for `by_class` and
            `match`.
    """
    prevalence = by_class(stated, prompt_set.class_names)
    if len(probabilities) < LEAST:
        raise ValueError(
            f"{len(probabilities)} photographs are too few to set offsets: name at least {LEAST}, "
            "or leave out --prevalence"
        )
    tempered = calibrated(np.asarray(probabilities, np.float64), temperature, np.zeros(1))
    offsets = match(tempered, prevalence)
    found = Calibration(
        model=model,
        prompts=prompt_set.name,
        prompts_digest=digest_of(prompt_set),
        classes=prompt_set.class_names,
        temperature=temperature,
        offsets=tuple(map(float, offsets)),
        method=PREVALENCE,
        data=data,
        n=len(probabilities),
        prevalence={
            name: round(float(value), 6)
            for name, value in zip(prompt_set.class_names, prevalence, strict=True)
        },
    )
    return found, dependence(tempered, prevalence, offsets, prompt_set.class_names)


def notes(found: Calibration, shifts: Sequence[Dependence]) -> list[str]:
    """Return notes about a calibration by prevalence, a sentence each."""
    said = []
    if found.n < FEW:
        said.append(f"{found.n} photographs are few to set offsets: {FEW} or more are better")
    worst = max(shifts, key=lambda one: one.worst)
    if worst.worst > MOST_CHANGED:
        said.append(
            f"the answers depend on the stated prevalence: with half the odds of {worst.name} "
            f"{worst.halved:.0%} of them change, with twice the odds {worst.doubled:.0%}"
        )
    return said
