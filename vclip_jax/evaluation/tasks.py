"""Zero-shot tasks: datasets and the prompts of their classes, opened and checked.

Errors in them are reported here, before anything is compiled.
"""

import dataclasses
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from ml_collections import ConfigDict

from vclip_jax import datasets, prompts
from vclip_jax.config import checks
from vclip_jax.data.images.preprocess import check_fitted
from vclip_jax.data.text.tokenizer import Tokenizer
from vclip_jax.data.text.wordpiece import WordPiece
from vclip_jax.datasets.ingest.prepare import build_command
from vclip_jax.evaluation.metrics.classification import has_kappa
from vclip_jax.files import packaged
from vclip_jax.files.errors import few
from vclip_jax.prompts import own, reading
from vclip_jax.prompts.findings import FindingPrompts, for_findings
from vclip_jax.train.sources import open_split, prepare_dataset

log = logging.getLogger("vclip_jax")


ZERO_SHOT = "zero_shot"
"""The kind of evaluation that classifies with prompts, see `zero_shot`."""
FINDINGS = "findings"
"""The kind of evaluation that asks each disease by itself, see `findings`."""

EVALUATIONS: dict[str, Callable[..., dict[str, float]]] = {}
"""The other values of `config.evals.NAME.kind`, which a recipe adds -> functions of scorer,
variables, `ZeroShotTask` and `zero_shot.Embedded` that return figures by name, for `metrics.jsonl`
as `eval/NAME/FIGURE`."""


@dataclasses.dataclass(frozen=True)
class ZeroShotTask:
    """A dataset and the prompts of its classes."""

    name: str
    source: Any
    """Random access to records, from `datasets.open_source`."""
    prompts: prompts.PromptSet
    kind: str = ZERO_SHOT
    """The kind of evaluation: "zero_shot" or one of `EVALUATIONS`."""
    findings: FindingPrompts | None = None
    """The words of the kind "findings"; `prompts` are then theirs."""
    development: Any = None
    """The records that choose the operating points, or None."""
    prevalence: float | None = None
    """The share of people with the second of two classes, for predictive values."""
    trained_on: str = ""
    """The training data of the model, DATASET:SPLIT, if the records are among it."""

    @property
    def development_split(self) -> str:
        """Return the name of the development split, "" without one."""
        return "" if self.development is None else str(self.development.split)

    @property
    def coarse(self) -> bool:
        """Return whether the labels are those of the prompts' groups."""
        return prompts.labels_are_groups(self.prompts, getattr(self.source, "class_names", ()))

    def numbered(self, labels: np.ndarray) -> np.ndarray:
        """Convert the dataset's labels int `[n]` to the prompts' numbers of classes.

        If the labels are `coarse`, they become numbers of groups. -1 stays.
        """
        numbers = self.prompts.numbers(self.source.class_names, groups=self.coarse)
        return np.where(labels >= 0, numbers[labels], -1)


def open_zero_shot_tasks(config: ConfigDict) -> list[ZeroShotTask]:
    """Open the config's evaluations; those whose data is neither built nor available are logged."""
    tasks = []
    for name, entry in config.evals.items():
        try:
            prepare_dataset(f"evals.{name}", entry, config.data.data_dir)
        except datasets.SourceNeededError:
            log.info(
                "evaluation %s is skipped, %s is not built: %s (or --config.evals.%s.source=DIR)",
                name,
                entry.dataset,
                build_command(entry.dataset, config.data.data_dir),
                name,
            )
            continue
        source = open_split(f"evals.{name}.split", entry.dataset, config.data.data_dir, entry.split)
        check_fitted(entry.dataset, source, config.data.image_size, config.data.fit)
        kind, asked = entry.get("kind", ZERO_SHOT), None
        with checks.naming(f"evals.{name}.prompts"):
            if kind == FINDINGS:
                asked = for_findings(entry.prompts, source.finding_names, source.name)
                prompt_set = asked.prompts
            else:
                prompt_set = prompts.for_classes(
                    entry.prompts, source.class_names, source.name, groups=True
                )
        if config.keep_best == f"eval/{name}/kappa" and not has_kappa(
            prompt_set.ordered, len(prompt_set.class_names)
        ):
            raise ValueError(
                f"config.keep_best={config.keep_best!r} is never measured: the classes of {name} "
                'have no order (if they are grades: "ordered": true in their prompt set)'
            )
        development = _development(f"evals.{name}.development", entry, config, source)
        prevalence = entry.get("prevalence") or None
        task = ZeroShotTask(name, source, prompt_set, kind, asked, development, prevalence)
        (_check_findings if kind == FINDINGS else _check_labels)(task)
        tasks.append(task)
    return tasks


def with_training(tasks: Sequence[ZeroShotTask], trained: str) -> list[ZeroShotTask]:
    """Return tasks that know whether their records are the model's training data, and warn if so.

    Args:
        tasks: the opened tasks.
        trained: the training data, DATASET:SPLIT+SPLIT as in `data.json`, with ", " between
            several; "" if unknown.
    """
    each = [one.rpartition(":") for one in trained.split(", ")]
    seen = [
        task
        for task in tasks
        if any(
            name == getattr(task.source, "name", None)
            and set(splits.split("+")).intersection(task.source.splits)
            for name, _, splits in each
        )
    ]
    for task in seen:
        log.warning(
            "warning: evaluation %s scores photographs of %s, on which the model was trained: its "
            "figures are too good",
            task.name,
            trained,
        )
    return [
        dataclasses.replace(task, trained_on=trained) if task in seen else task for task in tasks
    ]


def _development(key: str, entry: ConfigDict, config: ConfigDict, scored: Any) -> Any:
    """Open the split that chooses operating points, None without one.

    Raises:
        ValueError: it shares images with the scored split.
    """
    split = entry.get("development", "")
    if not split:
        return None
    source = open_split(key, entry.dataset, config.data.data_dir, split)
    if shared := {record["key"] for record in source} & {record["key"] for record in scored}:
        raise ValueError(
            f"config.{key}={split!r} has {len(shared)} images of the scored split {entry.split!r}: "
            "name another split"
        )
    return source


def check_words(config: ConfigDict) -> None:
    """Check the names of kinds, vocabulary and prompts, before any dataset is built."""
    for name, entry in config.evals.items():
        kinds = [ZERO_SHOT, FINDINGS, *EVALUATIONS]
        if (kind := entry.get("kind", ZERO_SHOT)) not in kinds:
            raise ValueError(f"config.evals.{name}.kind={kind!r} must be one of {', '.join(kinds)}")
    checks.check_names(config)
    if config.tokenizer.vocab != "captions":
        with checks.naming("tokenizer.vocab"):
            WordPiece.load(config.tokenizer.vocab)


def _check_labels(task: ZeroShotTask) -> None:
    """Check that every class has a photograph.

    Raises:
        ValueError: no record has a label, or a record has a label without a prompt.
    """
    source = task.source
    names = task.prompts.label_names if task.coarse else task.prompts.class_names
    where = f"{source.name}:{source.split}"
    seen: set[int] = set()
    for record in source:
        label = record["label"]
        if label >= len(names):
            raise ValueError(
                f"evaluation {task.name}: {record['key']} in {where} has the label {label}, of "
                f"{len(names)} classes in the prompts {task.prompts.name}"
            )
        seen.add(label)
        if source.class_names and len(seen - {-1}) == len(names):
            break
    numbers = set(task.numbered(np.array(sorted(seen))).tolist()) - {-1}
    if not numbers:
        raise ValueError(
            f"evaluation {task.name}: no label in {where}, so there is nothing to score: remove it "
            "from config.evals, or name a split with labels"
        )
    if missing := [name for number, name in enumerate(names) if number not in numbers]:
        log.warning("evaluation %s: no image in %s is of %s", task.name, where, few(missing))
    log.info(
        "evaluation %s: %d images of %s, classes %s (%s)",
        task.name,
        len(source),
        where,
        few(task.prompts.label_names, 20),
        "in order" if task.prompts.labels_ordered else "without an order, so no kappa",
    )


def _check_findings(task: ZeroShotTask) -> None:
    """Check that findings are rated, and say which photographs lack.

    Raises:
        ValueError: no record has a rated finding.
    """
    source = task.source
    where = f"{source.name}:{source.split}"
    truth = [record["findings"] for record in source]
    counts = {
        name: Counter(rated[name] for rated in truth if rated[name] >= 0)
        for name in source.finding_names
    }
    if not any(counts.values()):
        raise ValueError(
            f"evaluation {task.name}: no finding in {where} is rated, so there is nothing to "
            "score: remove it from config.evals, or name a split with ratings"
        )
    if missing := [name for name, seen in counts.items() if len(seen) < 2]:
        log.warning(
            "evaluation %s: not both present and absent in %s: %s",
            task.name,
            where,
            few(missing),
        )
    several = sum(sum(value == 1 for value in rated.values()) > 1 for rated in truth)
    log.info(
        "evaluation %s: %d images of %s, %d with several findings, findings %s",
        task.name,
        len(source),
        where,
        several,
        few(source.finding_names, 20),
    )


def check_readings(
    config: ConfigDict,
    tokenizer: Tokenizer,
    tasks: Sequence[ZeroShotTask],
    captions: Sequence[str],
    *,
    most_unknown: float,
) -> None:
    """Tokenize prompts and some captions, and log unknown words and texts that are too long.

    Raises:
        ValueError: the prompts of two classes of a task have the same tokens, or a share of more
            than `most_unknown` of the captions' tokens is unknown.
    """
    remedy = "set config.tokenizer.vocab to a vocabulary of their language, or to 'captions'"
    if config.restore_from:  # the vocabulary comes from there
        remedy = "leave out config.restore_from, or start from a model of the captions' language"
    notes = reading.check_captions(captions, tokenizer, most_unknown, remedy)
    for task in tasks:
        try:
            notes += reading.check_prompts(task.prompts, tokenizer, config.tokenizer.context_length)
        except ValueError as error:
            raise ValueError(f"evaluation {task.name}: {error}") from None
    for note in dict.fromkeys(notes):  # two evaluations may have the same prompts
        log.warning("%s", note)


def usual_prompts(
    config: ConfigDict, tasks: Sequence[ZeroShotTask], train: Any, tokenizer: Tokenizer
) -> prompts.PromptSet | None:
    """Return the model's default prompts, see `prompts.own`."""
    asked = [task.prompts for task in tasks if task.kind != FINDINGS]
    if asked:  # their words have been checked
        return asked[0]
    candidates = [prompts.load(e.prompts) for e in config.evals.values() if e.prompts != "labels"]
    if len(train.class_names) > 1:
        labels = {label: label for label in train.class_names}
        candidates.append(prompts.from_phrases(labels, f"classes of {train.name}"))
    source = packaged.path_of(config.restore_from) if config.restore_from else None
    if source and (earlier := own.load(source)) is not None:
        candidates.append(earlier)
    length = config.tokenizer.context_length
    return next(
        (prompt_set for prompt_set in candidates if own.reads(prompt_set, tokenizer, length)), None
    )
