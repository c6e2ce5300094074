"""Measure models on real photographs.

    python benchmarks/real_photographs.py MODEL... --source DIR

DIR is the folder "B. Disease Grading" of IDRiD, whose training part may be used to choose between
recipes. MODEL is a run, a portable folder or the name of a packaged model. Each model gives a row
of a Markdown table, and a line of JSON:

- AUC of retinopathy of grade 2 and worse by `zh/idrid`, with the 95 % interval of a bootstrap over
  photographs;
- the classes of `zh/fives` that the eyes of grade 0, and those of grade 2 and worse get, as shares;
- of a run, also the mean accuracy and AUC on the stand-ins (`..._like`) and on the domains of far
  cameras (`..._far`), as measured at its end, and its hours.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
from sklearn.metrics import roc_auc_score

import vclip_jax
from vclip_jax.datasets.catalog import DATASETS
from vclip_jax.datasets.formats import blobs

RESAMPLES = 2000


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("models", nargs="+")
    parser.add_argument("--source", required=True, help='IDRiD\'s "B. Disease Grading"')
    options = parser.parse_args()
    listing = DATASETS["idrid"].scan(options.source)
    # The reader holds a part of IDRiD's training part back.
    items = [item for item in listing.items if item.split in ("train", "holdout")]
    photographs = [blobs.read(item.image) for item in items]
    grades = np.array([item.label for item in items])
    rows = [row(model, photographs, grades) for model in options.models]
    print("| " + " | ".join(rows[0]) + " |")
    print("|" + "---|" * len(rows[0]))
    for values in rows:
        print("| " + " | ".join(f"{value}" for value in values.values()) + " |")
    for values in rows:
        print(json.dumps(values))


def row(model: str, photographs: list[bytes], grades: np.ndarray) -> dict[str, Any]:
    """Measure one model.

    Args:
        model: path or name.
        photographs: encoded.
        grades: retinopathy 0-4, int `[n]`.
    """
    clip = vclip_jax.load(model)
    squares = np.stack([clip.preprocess(data) for data in photographs])
    starts = range(0, len(squares), clip.batch_size)
    vectors = np.concatenate([clip.embed(squares[i : i + clip.batch_size]) for i in starts])
    score = clip.probabilities(vectors, "zh/idrid")[:, 2:].sum(1)
    truth = grades >= 2
    rng = np.random.default_rng(0)
    draws = [rng.integers(0, len(grades), len(grades)) for _ in range(RESAMPLES)]
    resampled = [roc_auc_score(truth[d], score[d]) for d in draws if 0 < truth[d].sum() < len(d)]
    low, high = np.quantile(resampled, (0.025, 0.975))
    names = clip.asked("zh/fives").class_names
    answers = clip.probabilities(vectors, "zh/fives").argmax(1)
    measured = {
        "model": Path(model).name,
        "photographs": len(grades),
        "AUC, grade >= 2": round(float(roc_auc_score(truth, score)), 3),
        "95 %": f"{low:.3f} to {high:.3f}",
    }
    for who, chosen in (("grade 0", grades == 0), ("grade >= 2", truth)):
        shares = np.bincount(answers[chosen], minlength=len(names)) / chosen.sum()
        for name, share in zip(names, shares, strict=True):
            measured[f"{who}: {name}"] = round(float(share), 3)
    return measured | of_run(Path(model))


def of_run(workdir: Path) -> dict[str, Any]:
    """The figures that a run measured itself, and nothing for other models."""
    path = workdir / "zero_shot.json"
    if not path.exists():
        return {}
    results = json.loads(path.read_text("utf-8"))
    found: dict[str, Any] = {}
    for kind in ("like", "far"):
        of_kind = [r for name, r in results.items() if name.endswith(f"_{kind}")]
        for figure in ("accuracy", "auc"):
            values = [r[figure] for r in of_kind if figure in r]
            if values:
                found[f"{kind} {figure}"] = round(float(np.mean(values)), 3)
    return found


if __name__ == "__main__":
    main()
