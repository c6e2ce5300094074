"""A made-up workdir, complete or not, as a training run would leave it."""

import base64
import dataclasses
import io
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from vclip_jax import prompts
from vclip_jax.evaluation.metrics import bootstrap, predictions, retrieval
from vclip_jax.evaluation.prompt_sensitivity import prompt_sensitivity

DATASETS = {
    "messidor_like": (
        "no diabetic retinopathy",
        "mild diabetic retinopathy",
        "moderate diabetic retinopathy",
        "severe or proliferative diabetic retinopathy",
    ),
    "fives_like": (
        "normal",
        "age-related macular degeneration",
        "diabetic retinopathy",
        "glaucoma",
    ),
    "refuge_like": ("no glaucoma", "glaucoma"),
}


def prompt_set(dataset: str) -> prompts.PromptSet:
    names = DATASETS[dataset]
    phrases = tuple((f"眼底彩照，提示第{i}类。", f"疑似第{i}类病变") for i in range(len(names)))
    filled = tuple(tuple(f"{t}{p}" for t in ("", "左眼：") for p in own) for own in phrases)
    return prompts.PromptSet(
        f"zh/{dataset}",
        "zh",
        names,
        filled,
        templates=("{}", "左眼：{}"),
        source="made up for a test",
    )


def picture(seed: int) -> str:
    """A small disc on black, as a data URI."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[-1:1:96j, -1:1:96j]
    inside = (x**2 + y**2 < 0.9)[..., None]
    disc = np.exp(-(((x - 0.4) ** 2 + y**2) / 0.02))[..., None]
    colour = (
        np.array([190, 90, 40]) + disc * np.array([60, 120, 90]) + rng.normal(0, 8, (96, 96, 1))
    )
    buffer = io.BytesIO()
    Image.fromarray((inside * colour).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG")
    return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()


def answers(
    dataset: str, seed: int, n: int = 300, skill: float = 1.5
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Labels, logits and probabilities; the same seed gives the same labels at any skill."""
    rng = np.random.default_rng(seed)
    classes = DATASETS[dataset]
    odds = [0.9, 0.1] if len(classes) == 2 else [1 / len(classes)] * len(classes)
    labels = rng.choice(len(classes), n, p=odds)
    logits = rng.standard_normal((n, len(classes))) + skill * np.eye(len(classes))[labels]
    return labels, logits, np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)


def write_answers(
    folder: Path, dataset: str, seed: int, name: str = "", skill: float = 1.5
) -> None:
    """The file of these answers in a workdir, under the dataset's name or another one."""
    labels, _, scores = answers(dataset, seed, skill=skill)
    rows = predictions.Rows(dataset, tuple(f"image {i}" for i in range(len(labels))))
    predictions.save(
        predictions.path_of(folder, name or dataset),
        predictions.predictions_of(rows, labels, scores, DATASETS[dataset], ordered=True),
    )


def evaluate(dataset: str, seed: int) -> tuple[dict, list]:
    """A result and examples whose labels are drawn first and scores leaning towards them."""
    labels, logits, scores = answers(dataset, seed)
    rng = np.random.default_rng(seed)
    classes = DATASETS[dataset]
    words = prompt_set(dataset)
    texts = np.repeat(np.eye(len(classes)), 4, axis=0) + 0.3 * rng.standard_normal(
        (4 * len(classes), 1)
    )
    result = {
        **bootstrap.classification(scores, labels, ordered=True, resamples=200),
        "classes": list(classes),
        "prompts": dataclasses.asdict(words),
        "prompt_sensitivity": prompt_sensitivity(
            logits, np.split(texts, len(classes)), labels, words, 0.0
        ),
    }
    right = scores.argmax(axis=1) == labels
    chosen = [*np.flatnonzero(right)[:4], *np.flatnonzero(~right)[:4]]
    examples = [
        {
            "image": picture(i),
            "label": int(labels[i]),
            "probabilities": scores[i].tolist(),
            "heat": picture(i + 1000),
        }
        for i in chosen
    ]
    return result, examples


def log(steps: int = 4000, every: int = 10, until: int | None = None) -> list[dict[str, Any]]:
    rng = np.random.default_rng(0)
    rows: list[dict[str, Any]] = []
    for step in range(every, (until or steps) + 1, every):
        done = step / steps
        rows.append(
            {
                "step": step,
                "time": 1.79e9 + 0.31 * step,
                "loss": 0.4 + 5.1 * math.exp(-6 * done) + 0.05 * rng.standard_normal(),
                "logit_scale": 14.3 + 30 * done**0.7,
                "learning_rate": 5e-4 * min(step / 200, 0.5 * (1 + math.cos(math.pi * done))),
                "grad_norm": float(2.2 * math.exp(-2 * done) * rng.lognormal(0, 0.4)),
                "examples_per_second": 3300 + 60 * rng.standard_normal(),
                "data_wait_fraction": abs(0.004 + 0.003 * rng.standard_normal()),
            }
        )
        if step % 500 == 0:
            row: dict[str, Any] = {
                "step": step,
                "eval/validation/loss": 0.6 + 4 * math.exp(-5 * done),
            }
            for index, name in enumerate(DATASETS):
                for shift, key in enumerate(("accuracy", "balanced_accuracy", "auc", "kappa")):
                    level = 0.25 + 0.1 * index + 0.03 * shift + 0.35 * done
                    row[f"eval/{name}/{key}"] = level + 0.02 * rng.standard_normal()
            rows.append(row)
    return rows


def files() -> dict[str, Any]:
    """File name -> content of a finished run; `metrics.jsonl` as a list of lines."""
    results = {name: evaluate(name, seed) for seed, name in enumerate(DATASETS)}
    rng = np.random.default_rng(9)
    texts = rng.standard_normal((120, 32))
    ids = rng.integers(0, 120, 500)
    images = texts[ids] + 2.2 * rng.standard_normal((500, 32))
    return {
        "config.json": {
            "name": "RN50 + RoBERTa-wwm on synthetic fundus images",
            "profile": {"first": 10, "steps": 0},
            "total_steps": 4000,
            "global_batch_size": 1024,
            "seed": 42,
            "optimizer": {"learning_rate": 5e-4, "betas": [0.9, 0.999], "weight_decay": 0.2},
            "model": {"image": "resnet50", "text": "roberta-wwm-ext-base", "embed_dim": 1024},
            "data": {"augment": {}, "caption": "眼底彩照", "cache": None, "shuffle": True},
        },
        "environment.json": {
            "started": "2026-09-23 21:20 UTC",
            "devices": ["NVIDIA H200"] * 8,
            "process_count": 2,
            "git_commit": "0123456789abcdef0123456789abcdef01234567",
            "versions": {"jax": "0.10.2", "flax": "0.12.8", "python": "3.11.7"},
        },
        "metrics.jsonl": log(),
        "zero_shot.json": {name: result for name, (result, _) in results.items()},
        "retrieval.json": {
            **retrieval.retrieval(images, texts, ids),
            "test": retrieval.retrieval(images[:200], texts, ids[:200]),
        },
        "examples.json": {name: examples for name, (_, examples) in results.items()},
    }


def write(folder: Path, content: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in content.items():
        if name.endswith(".jsonl"):
            text = "".join(json.dumps(row) + "\n" for row in value)
        else:
            text = json.dumps(value, ensure_ascii=False)
        (folder / name).write_text(text, encoding="utf-8")
    return folder


@pytest.fixture
def contents() -> dict[str, Any]:
    """The files of a finished run, to be changed by a test and written with `write`."""
    return files()


@pytest.fixture(scope="session")
def contents_of_run() -> dict[str, Any]:
    """The files of a finished run, which no test changes."""
    return files()


@pytest.fixture(scope="session")
def finished(tmp_path_factory) -> Path:
    """The workdir of a finished run."""
    return write(tmp_path_factory.mktemp("run"), files())


@pytest.fixture
def workdir(tmp_path) -> Callable[[dict[str, Any]], Path]:
    """Writes files into a fresh workdir and returns it."""
    return lambda content: write(tmp_path / "run", content)


@pytest.fixture(scope="session")
def save_answers() -> Callable[..., None]:
    """`write_answers`, for tests."""
    return write_answers
