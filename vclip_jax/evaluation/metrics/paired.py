"""Paired tests: two systems, or two prompt sets, on the images that both have answered."""

import os
from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, Final

import numpy as np
from etils import epath

from vclip_jax.evaluation.metrics import bootstrap
from vclip_jax.evaluation.metrics.predictions import Hashes, Predictions, load, path_of
from vclip_jax.files.errors import few

MOST_PAIRS: Final = 10
"""The largest number of pairs of evaluations of a run that are compared."""


def compare(
    first: Predictions,
    second: Predictions,
    *,
    resamples: int = bootstrap.RESAMPLES,
    seed: int = 0,
) -> dict[str, Any]:
    """Compare two systems by a paired test on the images that both have classified.

    Returns:
        `n`, `only_first`, `only_second` (images that the other lacks), `tests`
        (`bootstrap.paired_test`, over patients if one of the two knows them), `unit`, `units`,
        `resamples` and `seed`.

    Raises:
        ValueError: one line: classes differ, no image is in both, or labels contradict each other.
    """
    if first.classes != second.classes:
        raise ValueError(
            f"their classes differ: {few(first.classes, 20)} and {few(second.classes, 20)}"
        )
    common, rows, others = np.intersect1d(first.hash, second.hash, return_indices=True)
    if not len(common):
        raise ValueError("they have no image in common")
    labels = first.labels[rows]
    if wrong := int(np.sum(labels != second.labels[others])):
        raise ValueError(f"{wrong} of their {len(common)} common images have different labels")
    patients = first.patients[rows] if first.patients is not None else None
    if patients is None and second.patients is not None:
        patients = second.patients[others]
    return {
        "n": len(common),
        "unit": "image" if patients is None else "patient",
        "units": len(common if patients is None else np.unique(patients)),
        "only_first": len(first.hash) - len(common),
        "only_second": len(second.hash) - len(common),
        "tests": bootstrap.paired_test(
            first.probabilities[rows],
            second.probabilities[others],
            labels,
            ordered=first.ordered and second.ordered,
            patients=patients,
            resamples=resamples,
            seed=seed,
        ),
        "resamples": resamples,
        "seed": seed,
    }


def compare_each(
    files: Mapping[str, epath.Path], dataset: str, *, resamples: int = bootstrap.RESAMPLES
) -> tuple[list[dict[str, Any]], list[str]]:
    """Compare every two of several systems or runs on one dataset, see `compare`.

    Args:
        files: name -> path of the predictions (`path_of`).
        dataset: the dataset's name, for the notices.
        resamples: the number of resamples of each test.

    Returns:
        Dicts of `first`, `second` (names) and the result of `compare`; and notices about pairs that
        cannot be compared.
    """
    loaded: dict[str, Predictions] = {}
    rows, notices = [], []
    for name, path in files.items():
        try:
            loaded[name] = load(path)
        except FileNotFoundError:
            notices.append(f"{name} is not compared on {dataset}: there is no {path}.")
        except ValueError as error:
            notices.append(f"{name} is not compared on {dataset}: {error}.")
    for first, second in combinations(loaded, 2):
        try:
            pair = compare(loaded[first], loaded[second], resamples=resamples)
        except ValueError as error:
            notices.append(f"{first} is not compared with {second} on {dataset}: {error}.")
            continue
        rows.append({"first": first, "second": second, **pair})
    return rows, notices


def compare_systems(
    workdir: str | os.PathLike[str], names: Sequence[str]
) -> tuple[list[dict[str, Any]], list[str]]:
    """Compare evaluations of one run on the same images and classes, such as two prompt sets.

    Returns:
        As for `compare_each`, for at most `MOST_PAIRS` pairs, in the order of `names`.
    """
    loaded: dict[str, Predictions] = {}
    notices = []
    for name in names:
        try:
            loaded[name] = load(path_of(workdir, name))
        except FileNotFoundError:
            continue
        except ValueError as error:
            notices.append(f"{error}.")
    pairs = [
        (a, b)
        for a, b in combinations(loaded, 2)
        if loaded[a].classes == loaded[b].classes and _same(loaded[a].hash, loaded[b].hash)
    ]
    if len(pairs) > MOST_PAIRS:
        notices.append(f"Only the first {MOST_PAIRS} of {len(pairs)} pairs are compared.")
    rows = [
        {"first": a, "second": b, **compare(loaded[a], loaded[b])} for a, b in pairs[:MOST_PAIRS]
    ]
    return rows, notices


def _same(a: Hashes, b: Hashes) -> bool:
    return np.array_equal(np.sort(a), np.sort(b))
