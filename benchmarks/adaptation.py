"""Measure if statistics of a site's unlabelled photographs help a model there.

    python benchmarks/adaptation.py --model W --data-dir D [--reference NAME]

The labels of IDRiD's photographs are used for the figures alone. The rows are:

- the model as it is;
- the means and variances of batch norm estimated anew from the photographs (Y. Li et al.,
  Revisiting batch normalization for practical domain adaptation, 2016; the average over batches:
  Y. Wu and J. Johnson, Rethinking "Batch" in BatchNorm, 2021);
- half of them: the mean of the model's own statistics and of the site's (S. Schneider et al.,
  Improving robustness against common corruptions by covariate shift adaptation, NeurIPS 2020);
- embeddings moved so that their mean is that of --reference, a drawn dataset.

The figures are the AUC of grade 2 and worse, and the share of grade-0 eyes that zh/fives calls
normal and AMD. The last line is one JSON object with the differences from the first row and their
paired bootstrap intervals.
"""

import argparse
import json
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

import vclip_jax
from vclip_jax import prompts
from vclip_jax.datasets import open_source
from vclip_jax.evaluation.metrics import bootstrap
from vclip_jax.interop import names
from vclip_jax.interop.weights import Weights
from vclip_jax.models.batch_norm import BatchNorm
from vclip_jax.models.build import split_model
from vclip_jax.predict.pretrained import Pretrained

BATCH = 64


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--model", required=True)
    parser.add_argument("--data-dir", default="data")
    parser.add_argument("--split", default="train+holdout", help="of idrid")
    parser.add_argument(
        "--reference", default="synthetic/fives_like-128px-600-s1", help="a dataset like training's"
    )
    options = parser.parse_args()
    clip = vclip_jax.load(options.model)
    squares, labels = read(clip, options.data_dir, "idrid", options.split)
    drawn, _ = read(clip, options.data_dir, options.reference, "test")
    own = clip.variables[1]
    site = statistics(clip, squares)
    half = jax.tree.map(lambda a, b: (a + b) / 2, own, site)
    found = {"as it is": embed(clip, squares)}
    found["batch norm of the site"] = embed(with_statistics(clip, site), squares)
    found["half of it"] = embed(with_statistics(clip, half), squares)
    moved = found["as it is"] + embed(clip, drawn).mean(0) - found["as it is"].mean(0)
    found["embeddings re-centred"] = moved / np.linalg.norm(moved, axis=1, keepdims=True)
    output = report(clip, found, labels)
    print(json.dumps({"n": len(labels), **output}))


def read(clip: Pretrained, data_dir: str, name: str, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Return the squares of a split, uint8 `[n, s, s, 3]`, and its labels."""
    records = list(open_source(name, data_dir, split))
    squares = [clip.preprocess(record["image"], record["key"]) for record in records]
    return np.stack(squares), np.array([record["label"] for record in records])


def batches(squares: np.ndarray) -> Iterator[np.ndarray]:
    """Yield full batches in a shuffled order; the rest is left out."""
    order = np.random.default_rng(0).permutation(len(squares))
    for start in range(0, len(squares) - BATCH + 1, BATCH):
        yield squares[order[start : start + BATCH]]


def statistics(clip: Pretrained, squares: np.ndarray) -> dict:
    """Return batch norm's means and variances over the photographs, averaged over batches."""

    @jax.jit
    def of_batch(params: dict, stats: dict, images: jax.Array) -> dict:
        model = nnx.merge(clip.graphdef, params, stats)
        model.encode_image(images, train=True)
        _, _, moved = split_model(model)
        # A training step moves the running statistics by a tenth of the way to the batch's.
        return jax.tree.map(lambda old, new: old + (new - old) / BatchNorm.momentum, stats, moved)

    params, stats = clip.variables
    every = [of_batch(params, stats, jnp.asarray(images)) for images in batches(squares)]
    flat = [names.flatten({}, one) for one in every]
    means = {key: np.mean([one[key] for one in flat], axis=0) for key in flat[0]}
    for key in means:
        if key.endswith(".var"):  # add the variance of the means
            centres = np.array([one[key.removesuffix("var") + "mean"] for one in flat])
            means[key] = means[key] + centres.var(axis=0)
    return names.unflatten(means)[1]


def with_statistics(clip: Pretrained, stats: dict) -> Pretrained:
    arrays = names.flatten(clip.variables[0], stats)
    weights = Weights(clip.config, {key: np.asarray(value) for key, value in arrays.items()})
    return Pretrained(weights, clip.tokenizer, prompts=clip.prompts)


def embed(clip: Pretrained, squares: np.ndarray) -> np.ndarray:
    step = clip.batch_size
    parts = [clip.embed(squares[start : start + step]) for start in range(0, len(squares), step)]
    return np.concatenate(parts)


def report(clip: Pretrained, found: dict[str, np.ndarray], labels: np.ndarray) -> dict:
    grades, fives = prompts.load("zh/idrid"), prompts.load("zh/fives")
    referable = (labels >= 2).astype(int)
    healthy = np.flatnonzero(labels == 0)
    rng = np.random.default_rng(0)
    drawn = rng.integers(0, len(healthy), (10_000, len(healthy)))
    asked, answers = {}, {}
    for name, embeddings in found.items():
        asked[name] = grades.group(clip.probabilities(embeddings, grades, calibration="off"))
        answers[name] = clip.probabilities(embeddings[healthy], fives, calibration="off").argmax(
            axis=1
        )
    output: dict[str, dict] = {}
    for name in found:
        test = bootstrap.paired_test(asked[name], asked["as it is"], referable)["auc"]
        row = {"auc": test["first"], "auc_difference": test["difference"]}
        row["auc_difference_ci95"] = test["difference_ci95"]
        for c, key in ((0, "normal"), (1, "amd")):
            called = answers[name] == c
            change = called.astype(float) - (answers["as it is"] == c)
            row[key] = called.mean()
            row[f"{key}_difference_ci95"] = np.quantile(
                change[drawn].mean(axis=1), (0.025, 0.975)
            ).tolist()
        output[name] = {key: np.round(value, 4).tolist() for key, value in row.items()}
        print(f"{name}: {output[name]}", flush=True)
    return output


if __name__ == "__main__":
    main()
