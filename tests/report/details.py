"""Operating points, curves, subgroups and findings of a made-up run."""

import numpy as np

from vclip_jax import prompts
from vclip_jax.evaluation.details import LabelSet, describe
from vclip_jax.evaluation.metrics.findings import findings
from vclip_jax.evaluation.metrics.predictions import Rows


def detailed(contents: dict, name: str, seed: int = 0) -> dict:
    """Return a run's files with details of one of its evaluations, and with findings."""
    rng = np.random.default_rng(seed)
    classes = contents["zero_shot.json"][name]["classes"]
    n = contents["zero_shot.json"][name]["n"]
    labels = rng.integers(0, len(classes), n)
    logits = rng.standard_normal((n, len(classes))) + 1.5 * np.eye(len(classes))[labels]
    scores = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    facts = {
        "sex": tuple("f" if i % 2 else "m" for i in range(n)),
        "camera": tuple("A" if i < n - 5 else "B & Co_%" for i in range(n)),
    }
    rows = Rows(
        name, tuple(f"k{i}" for i in range(n)), tuple(f"p{i // 2}" for i in range(n)), facts
    )
    words = prompts.from_phrases({one: one for one in classes})
    more, curves = describe(LabelSet(name, words, scores, labels), rows, resamples=100)
    truth = (rng.random((n, 2)) < 0.3).astype(int)
    chances = np.clip(truth * 0.4 + rng.random((n, 2)) * 0.6, 0, 1)
    found = findings(chances, truth, ["DR", "AMD"], patients=rows.people, resamples=100)
    results = contents["zero_shot.json"]
    return {
        **contents,
        "zero_shot.json": {**results, name: {**results[name], **more}},
        "curves.json": {name: curves},
        "findings.json": {"odir": {**found, "dataset": "odir", "chosen_on": "train"}},
    }
