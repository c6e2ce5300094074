"""Fit a temperature and class offsets to labelled photographs.

With p the probabilities of a photograph, the calibrated probabilities are softmax(a log p + b). The
fit chooses a (one over the temperature) and b (an offset for each class) that minimise

    sum of -log(calibrated probability of the true class)
        + (a - 1)^2 / (2 SLOPE^2) + |b|^2 / (2 OFFSET^2).

The ridge is a normal prior of a around 1 and of b around 0. It weighs as much as a few photographs:
it decides the fit of five, and has little effect on the fit of hundreds. The function is convex, so
the minimum does not depend on the start.
"""

from typing import Final

import numpy as np
import numpy.typing as npt
from scipy.optimize import minimize
from scipy.special import log_softmax

from vclip_jax.evaluation.metrics import bootstrap
from vclip_jax.prompts.calibration import calibrated

Floats = npt.NDArray[np.floating]
Ints = npt.NDArray[np.integer]

SLOPE: Final = 1.0
OFFSET: Final = 1.0
"""Standard deviations of the prior, see above."""
_LEAST_SLOPE: Final = 1e-3
_TINY: Final = 1e-38


def fit(probabilities: Floats, labels: Ints) -> tuple[float, npt.NDArray[np.float64]]:
    """Fit the temperature and the offsets `[c]`, of sum 0.

    Args:
        probabilities: `[n, c]`, not calibrated.
        labels: int `[n]`, `0 <= label < c`; a class may have no photograph.

    Examples:
        >>> import numpy as np
        >>> from vclip_jax.evaluation.calibration.fit import fit
        >>> answers = np.array([[0.9, 0.1]] * 8)  # too sure: one answer in four is wrong
        >>> temperature, offsets = fit(answers, np.array([0, 0, 0, 1, 0, 0, 1, 0]))
        >>> temperature > 1, bool(offsets[0] < offsets[1])
        (True, True)
    """
    log = np.log(np.maximum(np.asarray(probabilities, np.float64), _TINY))
    classes = log.shape[1]
    truth = np.eye(classes)[labels]

    def loss(x: Floats) -> tuple[float, Floats]:
        slope, offsets = x[0], x[1:]
        answers = log_softmax(slope * log + offsets, axis=1)
        excess = np.exp(answers) - truth
        value = -(answers * truth).sum()
        value += (slope - 1) ** 2 / (2 * SLOPE**2) + offsets @ offsets / (2 * OFFSET**2)
        gradient = np.empty(1 + classes)
        gradient[0] = (excess * log).sum() + (slope - 1) / SLOPE**2
        gradient[1:] = excess.sum(axis=0) + offsets / OFFSET**2
        return float(value), gradient

    found = minimize(
        loss,
        np.r_[1.0, np.zeros(classes)],
        jac=True,
        method="L-BFGS-B",
        bounds=[(_LEAST_SLOPE, None), *[(None, None)] * classes],
        options={"maxiter": 10_000, "ftol": 1e-14, "gtol": 1e-8},
    ).x
    return float(1 / found[0]), found[1:] - found[1:].mean()


def draw(
    n: int, shots: int | None, seed: int, patients: Ints | None = None
) -> npt.NDArray[np.int64]:
    """Draw photographs: return rising numbers below `n`, or all of them for None.

    The photographs of fewer shots are among those of more shots. With `patients`, a number for the
    patient of each photograph, whole patients are drawn until there are enough photographs.
    """
    order = np.random.Generator(np.random.Philox(np.random.SeedSequence(seed)))
    unit_of, units = bootstrap.units(n, patients)
    drawn = order.permutation(units)
    if shots is None:
        return np.arange(n)
    sizes = np.bincount(unit_of, minlength=units)[drawn]
    enough = int(np.searchsorted(np.cumsum(sizes), shots)) + 1
    return np.flatnonzero(np.isin(unit_of, drawn[:enough]))


def folds_of(
    labels: Ints, folds: int, seed: int, patients: Ints | None = None
) -> npt.NDArray[np.int64]:
    """Return the fold of each photograph, int `[n]`; those of one patient are in one fold.

    Each class is dealt out in a drawn order, so that folds differ by at most one in their size and
    in the photographs of a class. A patient counts by the first photograph.
    """
    unit_of, units = bootstrap.units(len(labels), patients)
    first = np.unique(unit_of, return_index=True)[1]
    rng = np.random.Generator(np.random.Philox(np.random.SeedSequence((seed, 1))))
    order = rng.permutation(units)
    order = order[np.argsort(labels[first][order], kind="stable")]
    found = np.empty(units, np.int64)
    found[order] = np.arange(units) % folds
    return found[unit_of]


def cross_validated(
    probabilities: Floats, labels: Ints, folds: int, seed: int, patients: Ints | None = None
) -> Floats:
    """Return calibrated probabilities `[n, c]`, each from a fit without its patient."""
    _, units = bootstrap.units(len(labels), patients)
    fold = folds_of(labels, min(folds, units), seed, patients)
    found = np.empty_like(probabilities)
    for number in range(fold.max() + 1):
        out = fold == number
        found[out] = calibrated(probabilities[out], *fit(probabilities[~out], labels[~out]))
    return found
