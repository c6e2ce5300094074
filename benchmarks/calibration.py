"""Measure a calibration over many draws of the labelled photographs.

    python benchmarks/calibration.py --model W --data-dir D --dataset idrid --split train+holdout \\
        --prompts zh/idrid [--shots 50] [--draws 20]

Each draw repeats `vclip calibrate --shots`: temperature and offsets are fitted on the draw, and
the other photographs are scored before and after. Prints means over the draws, with the standard
deviation of the difference. `--prevalence` also measures offsets for a stated prevalence, set on
all photographs without labels. The last line is one JSON object.
"""

import argparse
import json

import numpy as np

import vclip_jax
from vclip_jax.console.commands import shares
from vclip_jax.datasets import open_source
from vclip_jax.evaluation.calibration.experiment import FIGURES
from vclip_jax.evaluation.calibration.fit import draw, fit
from vclip_jax.evaluation.labelled import prompts_for, renumbered
from vclip_jax.evaluation.metrics.classification import classification
from vclip_jax.predict import prior_matching
from vclip_jax.predict.embeddings import embed_split
from vclip_jax.prompts.calibration import calibrated


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--split", default="test")
    parser.add_argument("--prompts")
    parser.add_argument("--shots", type=int, default=50)
    parser.add_argument("--draws", type=int, default=20)
    parser.add_argument("--prevalence", type=shares)
    options = parser.parse_args()
    clip = vclip_jax.load(options.model)
    names = open_source(options.dataset, options.data_dir, options.split).class_names
    words = prompts_for(clip, names, options.dataset, options.prompts)
    found = renumbered(embed_split(clip, options.dataset, options.data_dir, options.split), words)
    known = found.labels >= 0
    values = clip.probabilities(found.images[known], words, calibration="off")
    labels = found.labels[known]
    rows: list[dict[str, list[float]]] = []
    for seed in range(options.draws):
        drawn = draw(len(labels), options.shots, seed)
        others = np.setdiff1d(np.arange(len(labels)), drawn)
        after = calibrated(values[others], *fit(values[drawn], labels[drawn]))
        rows.append(figures(values[others], after, labels[others]))
    result = {key: summary([row[key] for row in rows]) for key in FIGURES}
    show(f"{options.shots} labels of {len(labels)}, {options.draws} draws", result)
    output = {"n": len(labels), "shots": options.shots, "draws": options.draws, **result}
    if options.prevalence:
        stated = prior_matching.by_class(options.prevalence, words.class_names)
        after = calibrated(values, 1.0, prior_matching.match(values, stated))
        matched = figures(values, after, labels)
        output["prevalence"] = {key: summary([matched[key]]) for key in FIGURES}
        show("stated prevalence, all photographs", output["prevalence"])
    print(json.dumps(output))


def figures(before: np.ndarray, after: np.ndarray, labels: np.ndarray) -> dict[str, list[float]]:
    both = [classification(values, labels) for values in (before, after)]
    return {key: [float(one[key]) for one in both] for key in FIGURES}


def summary(pairs: list[list[float]]) -> dict[str, float]:
    before, after = np.array(pairs).T
    return {
        "before": round(float(before.mean()), 4),
        "after": round(float(after.mean()), 4),
        "sd": round(float((after - before).std()), 4),
        "worst": round(float((after - before).max()), 4),
    }


def show(title: str, result: dict[str, dict[str, float]]) -> None:
    print(title)
    for key, row in result.items():
        print(f"  {key:20}" + "  ".join(f"{name} {value:.3f}" for name, value in row.items()))


if __name__ == "__main__":
    main()
