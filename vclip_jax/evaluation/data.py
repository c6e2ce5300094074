"""The data of a run, opened and checked: training pairs, held-back pairs, zero-shot tasks.

Errors in the data are reported here, before anything is compiled.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from vclip_jax import config as config_lib
from vclip_jax import datasets
from vclip_jax.data.text.tokenizer import Tokenizer
from vclip_jax.datasets.ingest.captions import describe_lengths, some_of
from vclip_jax.evaluation.tasks import (
    ZeroShotTask,
    check_readings,
    open_zero_shot_tasks,
    usual_prompts,
    with_training,
)
from vclip_jax.prompts import own
from vclip_jax.train.inputs import (
    check_data,
    load_tokenizer,
    name_of,
    open_test_pairs,
    open_training_data,
)

log = logging.getLogger("vclip_jax")


@dataclass(frozen=True)
class Data:
    """The data that a run reads; pairs of a kind that the run does not use are None."""

    train: Any
    validation: Any
    test: Any
    """Pairs that are measured only when the run ends."""
    tasks: list[ZeroShotTask]
    tokenizer: Tokenizer


def open_data(config: ConfigDict, workdir: Path) -> Data:
    """Open the data of a training, build what is missing, and record its digests in the workdir.

    Raises:
        ValueError, OSError: one line: the data is missing, differs from the data of the run's
            start, or has words that the model does not know.
    """
    log.info("data: %s", config.data.dataset or ", ".join(sorted(config.data.mixture)))
    train, validation = open_training_data(config)
    test = open_test_pairs(config)
    tasks = with_training(open_zero_shot_tasks(config), name_of(train))
    check_sources(workdir, {"train": train, "validation": validation, "test": test}, tasks)
    tokenizer = load_tokenizer(config, train, workdir)

    captions = some_of(train)
    check_readings(config, tokenizer, tasks, captions, most_unknown=config.tokenizer.max_unknown)
    if jax.process_index() == 0:
        own.save(workdir, usual_prompts(config, tasks, train, tokenizer))
    log.info("%s", describe_lengths(captions, tokenizer.encode, config.tokenizer.context_length))
    return Data(train, validation, test, tasks, tokenizer)


def open_scored_data(config: ConfigDict, tokenizer: Tokenizer, trained: str = "") -> Data:
    """Open the data to score a trained model on: zero-shot tasks, and held-back pairs if any.

    Args:
        config: the evaluation's config.
        tokenizer: the model's tokenizer.
        trained: the model's training data, see `inputs.training_data_of`.

    Raises:
        ValueError, OSError: one line: there is no such data, or it cannot be read.
    """
    tasks = with_training(open_zero_shot_tasks(config), trained)
    validation, test = None, None
    if config.data.dataset or config.data.mixture:
        unbalanced = config.copy_and_resolve_references()
        unbalanced.data.balance = ""  # which reads all training records
        try:
            _, validation = open_training_data(unbalanced)
            test = open_test_pairs(config)
        except datasets.SourceNeededError as error:
            missing = f"{config.data.dataset} is not built" if config.data.dataset else error
            log.info("held-back pairs are not scored: %s", missing)
    if validation is None and test is None and not tasks:
        raise ValueError(
            "there is nothing to evaluate on: name datasets in config.evals, and the folders of "
            "their files"
        )
    # The model is already trained, so unknown words in captions only give a warning.
    held_back = [source for source in (validation, test) if source is not None]
    captions = [caption for source in held_back for caption in some_of(source)]
    check_readings(config, tokenizer, tasks, captions, most_unknown=1.0)
    return Data(None, validation, test, tasks, tokenizer)


def check_sources(workdir: Path, pairs: Mapping[str, Any], tasks: Sequence[ZeroShotTask]) -> None:
    """Record the digests of `pairs` and `tasks`, or compare them, see `inputs.check_data`."""
    check_data(
        workdir,
        {**pairs, **{f"evals.{task.name}": task.source for task in tasks}},
        resumes=config_lib.has_begun(workdir),
        save=jax.process_index() == 0,
    )
