"""Which words stand best for the absence of a finding? The macro AUC of three ways.

    python benchmarks/absence.py --model W --dataset synthetic/synfundus_like-128px-12000-s0

Each finding's prompts are put against: their negations ("no" before each phrase), the healthy
words, and the mean of all other classes, which `evaluation.findings` uses. The last line is JSON.
"""

import argparse
import json
import logging

import numpy as np

import vclip_jax
from vclip_jax import prompts
from vclip_jax.datasets import open_source
from vclip_jax.evaluation.findings import truth_of
from vclip_jax.evaluation.metrics.classification import binary_auc
from vclip_jax.predict.embeddings import embed_split


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--dataset", required=True)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--split", default="test")
    parser.add_argument("--prompts", default="zh/synfundus")
    parser.add_argument("--healthy", default="normal", help="the class of healthy words")
    parser.add_argument("--no", default="未见", help="the word for a negation")
    options = parser.parse_args()
    logging.disable(logging.WARNING)
    clip = vclip_jax.load(options.model)
    source = open_source(options.dataset, options.data_dir, options.split)
    images = embed_split(clip, options.dataset, options.data_dir, options.split).images
    truth, asked = truth_of(source), prompts.load(options.prompts)

    def vector(texts: tuple[str, ...] | list[str]) -> np.ndarray:
        mean = clip.encode_text(list(texts)).mean(axis=0)
        return mean / np.linalg.norm(mean)

    words = dict(zip(asked.class_names, asked.prompts, strict=True))
    classes = {name: vector(texts) for name, texts in words.items()}
    areas: dict[str, list[float]] = {"negations": [], "healthy words": [], "other classes": []}
    for number, name in enumerate(source.finding_names):
        rated = truth[:, number] >= 0
        phrases = words[name][: len(words[name]) // len(asked.templates)]
        before, after = asked.templates[0].split("{}")
        bare = [phrase[len(before) : len(phrase) - len(after)] for phrase in phrases]
        absent = {
            "negations": vector(
                [t.replace("{}", options.no + one) for t in asked.templates for one in bare]
            ),
            "healthy words": classes[options.healthy],
            "other classes": np.mean([v for other, v in classes.items() if other != name], axis=0),
        }
        for way, against in absent.items():
            scores = images[rated] @ (classes[name] - against)
            areas[way].append(binary_auc(scores, truth[rated, number] == 1))
    for way, found in areas.items():
        print(f"{way:15} {np.mean(found):.3f}", *(f"{area:.2f}" for area in found))
    print(json.dumps({"images": len(images), **{way: np.mean(a) for way, a in areas.items()}}))


if __name__ == "__main__":
    main()
