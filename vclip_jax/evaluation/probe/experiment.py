"""The few-shot experiment: methods, shots and folds, the table and the file of its results."""

import logging
from argparse import Namespace
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from vclip_jax import prompts
from vclip_jax.console import commands
from vclip_jax.datasets import open_source
from vclip_jax.evaluation.labelled import prompts_for, renumbered
from vclip_jax.evaluation.metrics import classification, retrieval
from vclip_jax.evaluation.probe import INVERSE_PENALTY, WITHOUT_PROMPTS
from vclip_jax.evaluation.probe.few_shot import (
    METHODS,
    FewShot,
    Floats,
    Ints,
    draw_shots,
    linear,
    zero_shot,
)
from vclip_jax.files.writing import write_json
from vclip_jax.predict.embeddings import SplitEmbeddings, embed_split
from vclip_jax.predict.pretrained import Pretrained, load, say_step
from vclip_jax.prompts.order import rises

log = logging.getLogger("vclip_jax")

REPORTED = ("accuracy", "balanced_accuracy", "auc", "kappa")


# --- The experiment: methods x shots x folds.


def probe(
    train: SplitEmbeddings | None,
    test: SplitEmbeddings,
    classes: Floats,
    scale: float,
    *,
    methods: Sequence[str],
    shots: Sequence[int | None] = (1, 2, 4, 8, 16, None),
    folds: int = 5,
    seed: int = 0,
    inverse_penalty: float = INVERSE_PENALTY,
    ordered: bool = False,
) -> list[dict[str, Any]]:
    """Score methods on a test split, with k shots of a training split, fold by fold.

    Args:
        train, test: see `embeddings.embed_split`; `train` may be None for only "zero_shot".
        classes: the classes' vectors, float32 `[c, d]`; only their number matters for "linear".
        scale: the factor of cosines.
        methods: some of `METHODS`.
        shots: images of each class; None for all.
        folds: how often shots are drawn.
        seed: the seed of the shots and of the adapters' initial weights.
        inverse_penalty: the inverse penalty of the linear probe, see `fit_linear`.
        ordered: True if the classes are grades in rising order; otherwise there is no kappa.

    Returns:
        A dict for each method and number of shots: `method`, `shots` (0 for "zero_shot", None for
        all), `train_images`, `folds` (the figures of each fold) and each of `REPORTED` as
        `{"mean", "std"}`, with `std` over n - 1, or 0 for one fold; None if a fold's figure is
        None.

    Raises:
        ValueError: one line: a class has no training image, an image is in both splits, or a label
            is out of range.
    """
    known = test.labels >= 0
    wanted = test.labels[known]
    asked = test.images[known]
    _check_labels(test.labels, len(classes), "test")
    rows: list[dict[str, Any]] = []
    if "zero_shot" in methods:
        task = FewShot(asked[:0], wanted[:0], asked, classes, scale, seed)
        rows.append(_row("zero_shot", 0, 0, [zero_shot(task)], wanted, ordered))
    learning = [name for name in METHODS if name in methods and name != "zero_shot"]
    if not learning:
        return rows
    if train is None:
        raise ValueError("only zero_shot does without a training split")
    _check_training(train, test, len(classes))
    functions = METHODS | {"linear": partial(linear, inverse_penalty=inverse_penalty)}
    for name in learning:
        for number in shots:
            answers = []
            for fold in range(folds):
                drawn = draw_shots(train.labels, number, seed, fold)
                task = FewShot(
                    train.images[drawn], train.labels[drawn], asked, classes, scale, seed + fold
                )
                answers.append(functions[name](task))
            rows.append(_row(name, number, len(drawn), answers, wanted, ordered))
    return rows


def _check_training(train: SplitEmbeddings, test: SplitEmbeddings, classes: int) -> None:
    _check_labels(train.labels, classes, "training")
    if missing := sorted(set(range(classes)) - set(train.labels.tolist())):
        raise ValueError(f"the training split has no image of class {missing[0]}")
    if common := set(train.keys) & set(test.keys):
        raise ValueError(
            f"{len(common)} images are in both the training and the test split, such as "
            f"{min(common)}: the figures would be too good"
        )


def _check_labels(labels: Ints, classes: int, split: str) -> None:
    if not (labels >= 0).any():
        raise ValueError(f"no image of the {split} split has a label")
    if labels.max() >= classes:
        raise ValueError(f"the {split} split has the label {labels.max()}, of {classes} classes")


def _row(
    method: str,
    shots: int | None,
    train_images: int,
    answers: Sequence[Floats],
    labels: Ints,
    ordered: bool,
) -> dict[str, Any]:
    folds = []
    for probabilities in answers:
        figures = classification.classification(probabilities, labels, ordered=ordered)
        folds.append({key: figures[key] for key in REPORTED})
    row: dict[str, Any] = {"method": method, "shots": shots, "train_images": train_images}
    for key in REPORTED:
        values = [fold[key] for fold in folds]
        if any(value is None for value in values):
            row[key] = None
            continue
        spread = float(np.std(values, ddof=1)) if len(values) > 1 else 0.0
        row[key] = {"mean": float(np.mean(values)), "std": spread}
    return {**row, "folds": folds}


def format_table(rows: Sequence[dict[str, Any]]) -> str:
    """Format the rows of `probe` as a table, with percentages, and kappa as a number."""
    headings = ("method", "shots", "images", "accuracy", "balanced", "AUC", "kappa")
    lines = [headings]
    for row in rows:
        shots = "all" if row["shots"] is None else str(row["shots"])
        cells = [row["method"], shots, str(row["train_images"])]
        for key in REPORTED:
            factor, digits = (1, 3) if key == "kappa" else (100, 1)
            value = row[key]
            cells.append(
                "-"
                if value is None
                else f"{factor * value['mean']:.{digits}f} ± {factor * value['std']:.{digits}f}"
            )
        lines.append(tuple(cells))
    widths = [max(len(line[column]) for line in lines) for column in range(len(headings))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        ).rstrip()
        for line in lines
    )


# --- The command.


def run(options: Namespace) -> dict[str, Any]:
    """Measure, print, write the file that `--out` asks for, and return its content."""
    model = commands.chosen_model(options)
    clip = load(model, step=options.step)
    say_step(model, clip)
    names = open_source(options.dataset, options.data_dir, options.test_split).class_names
    prompt_set = _prompts(options, clip, names) if options.method != ("retrieval",) else None
    embed = partial(embed_split, clip, options.dataset, options.data_dir, cache=options.cache)
    test = embed(options.test_split)
    about = {
        "checkpoint": model,
        "step": clip.step,
        "model": clip.digest,
        "dataset": options.dataset,
        "test_split": options.test_split,
    }
    if options.method == ("retrieval",):
        for note in clip.readings(test.captions):
            log.warning("captions: %s", note)
        figures = retrieval.retrieval(test.images, test.texts, test.caption_ids)
        _print_retrieval(figures)
        return _write(options.out, "retrieval.json", {**about, **figures})

    if prompt_set is None:
        classes = np.zeros((len(names), clip.embed_dim), np.float32)
        ordered = rises(names)
    else:
        # Use the prompts' order of classes: shots are drawn in it, and kappa depends on it.
        test = renumbered(test, prompt_set)
        names, ordered = prompt_set.class_names, prompt_set.ordered
        classes = clip.class_embeddings(prompt_set)
        about["prompts"] = prompt_set.name
    learns = set(options.method) != {"zero_shot"}
    rows = probe(
        renumbered(embed(options.train_split), prompt_set) if learns else None,
        test,
        classes,
        float(np.exp(clip.logit_scale)),
        methods=options.method,
        shots=options.shots,
        folds=options.folds,
        seed=options.seed,
        inverse_penalty=options.inverse_penalty,
        ordered=ordered,
    )
    print(format_table(rows))
    about |= {"train_split": options.train_split} if learns else {}
    content = {
        **about,
        "classes": list(names),
        "n": int((test.labels >= 0).sum()),
        "seed": options.seed,
        "inverse_penalty": options.inverse_penalty,
        "results": rows,
    }
    return _write(options.out, "probe.json", content)


def _prompts(
    options: Namespace, clip: Pretrained, names: Sequence[str]
) -> prompts.PromptSet | None:
    """Return the checked prompts, or None if no method needs them.

    Raises:
        ValueError: one line: there are no prompts for these classes, or the model cannot read them.
    """
    if set(options.method) <= set(WITHOUT_PROMPTS) and options.prompts is None:
        if not names:
            raise ValueError(f"{options.dataset} does not name its classes: give --prompts")
        return None
    return prompts_for(clip, names, options.dataset, options.prompts)


def _print_retrieval(figures: dict[str, Any]) -> None:
    print(f"{figures['n']} images, {figures['texts']} different captions")
    for direction in ("image_to_text", "text_to_image"):
        cells = [
            f"R@{k} {100 * figures[direction][f'r{k}']:.1f} "
            f"(chance {100 * figures['chance'][direction][f'r{k}']:.1f})"
            for k in retrieval.RECALL_AT
        ]
        print(f"{direction}:  " + "  ".join(cells))


def _write(out: str | None, name: str, content: dict[str, Any]) -> dict[str, Any]:
    if out is not None:
        Path(out).mkdir(parents=True, exist_ok=True)
        write_json(Path(out) / name, content)
    return content
