"""Time the bootstrap on one core against a plain loop over scikit-learn's functions.

    python benchmarks/bootstrap.py [--images 1744] [--classes 5] [--resamples 10000]

Both compute every figure of `zero_shot.json` on resamples of the same images. The loop runs for
`--loop` resamples and its time is extrapolated. Its figures must equal ours to 1e-9, on the same
resamples. Rounds alternate; the result is the median. The last line is one JSON object.
"""

import argparse
import json
import os
import resource
import statistics
import time

os.environ.update(OPENBLAS_NUM_THREADS="1", OMP_NUM_THREADS="1", MKL_NUM_THREADS="1")

import numpy as np
import sklearn.calibration
import sklearn.metrics

from vclip_jax.evaluation.metrics import bootstrap

MESSIDOR_2 = (1017, 270, 347, 75, 35)
"""Images of each grade. The default sizes are those of MESSIDOR-2."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=int, default=sum(MESSIDOR_2))
    parser.add_argument("--classes", type=int, default=len(MESSIDOR_2))
    parser.add_argument("--resamples", type=int, default=bootstrap.RESAMPLES)
    parser.add_argument("--loop", type=int, default=25, help="number of resamples in the loop")
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    probabilities, labels = system(arguments.images, arguments.classes)
    ours, loops = [], []
    for round_ in range(arguments.rounds):
        start = time.perf_counter()
        found = bootstrap.distributions(
            probabilities, labels, resamples=arguments.resamples, seed=round_
        )
        ours.append(time.perf_counter() - start)
        start = time.perf_counter()
        wanted = loop(probabilities, labels, arguments.loop, seed=round_)
        loops.append(time.perf_counter() - start)
        difference = max(
            float(np.nanmax(np.abs(found[key][: arguments.loop] - wanted[key]))) for key in wanted
        )
        assert difference < 1e-9, difference
        print(
            f"round {round_ + 1}: {arguments.resamples} resamples in {ours[-1]:.2f} s, "
            f"scikit-learn {arguments.loop} in {loops[-1]:.2f} s, largest difference "
            f"{difference:.1e}"
        )
    seconds = statistics.median(ours)
    extrapolated = statistics.median(loops) / arguments.loop * arguments.resamples
    print(
        json.dumps(
            {
                "images": arguments.images,
                "classes": arguments.classes,
                "resamples": arguments.resamples,
                "seconds": round(seconds, 3),
                "scikit_learn_seconds_extrapolated": round(extrapolated, 1),
                "scikit_learn_resamples_run": arguments.loop,
                "ratio": round(extrapolated / seconds, 1),
                "largest_difference": difference,
                "peak_mib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024),
                "threads": 1,
            }
        )
    )


def system(images: int, classes: int) -> tuple[np.ndarray, np.ndarray]:
    """Return probabilities and labels of an invented system with about 70 % right answers."""
    rng = np.random.default_rng(0)
    shares = np.array(MESSIDOR_2[:classes] + (50,) * (classes - len(MESSIDOR_2)), float)
    labels = rng.choice(classes, images, p=shares / shares.sum())
    scores = rng.random((images, classes)) + 0.5 * np.eye(classes)[labels]
    return scores / scores.sum(axis=1, keepdims=True), labels


def loop(
    probabilities: np.ndarray, labels: np.ndarray, resamples: int, seed: int
) -> dict[str, np.ndarray]:
    """Compute one resample after another, each figure with scikit-learn if it has the figure."""
    rng = np.random.default_rng(seed)
    n, classes = probabilities.shape
    every = list(range(classes))
    rows: dict[str, list] = {}
    for _ in range(resamples):
        drawn = rng.integers(0, n, n)
        truth, p = labels[drawn], probabilities[drawn]
        answer, confidence = p.argmax(axis=1), p.max(axis=1)
        recalls = sklearn.metrics.recall_score(
            truth, answer, labels=every, average=None, zero_division=np.nan
        )
        areas = [
            sklearn.metrics.roc_auc_score(truth == c, p[:, c]) if c in truth else np.nan
            for c in every
        ]
        shares, means = sklearn.calibration.calibration_curve(
            truth == answer, confidence, n_bins=15
        )
        edges = np.linspace(0, 1, 16)[1:-1]
        sizes = np.bincount(np.searchsorted(edges, confidence), minlength=15)
        figures = {
            "accuracy": sklearn.metrics.accuracy_score(truth, answer),
            "balanced_accuracy": sklearn.metrics.balanced_accuracy_score(truth, answer),
            "auc": areas[1] if classes == 2 else np.nanmean(areas),
            "kappa": sklearn.metrics.cohen_kappa_score(
                truth, answer, labels=every, weights="quadratic"
            ),
            "f1": sklearn.metrics.f1_score(truth, answer, average="macro", zero_division=0),
            "ece": np.sum(sizes[sizes > 0] / n * np.abs(shares - means)),
            "sensitivity_per_class": recalls,
            "specificity_per_class": [
                sklearn.metrics.recall_score(truth != c, answer != c) for c in every
            ],
            "f1_per_class": sklearn.metrics.f1_score(
                truth, answer, labels=every, average=None, zero_division=np.nan
            ),
            "auc_per_class": areas,
        }
        for key, value in figures.items():
            rows.setdefault(key, []).append(value)
    return {key: np.array(values) for key, values in rows.items()}


if __name__ == "__main__":
    main()
