"""What a config names, opened: data, batches, evaluations, vocabulary.

What is wrong with them is said here, before anything is compiled.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, SupportsIndex

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding
from ml_collections import ConfigDict

from vclip_jax import config as config_lib
from vclip_jax import config_checks, cores, datasets, prompts, sharding
from vclip_jax.data import pipeline, prefetch, workers
from vclip_jax.data.augment import named_policy
from vclip_jax.data.json_tokenizer import TOKENIZER, VOCAB, AnyTokenizer, file_name, in_folder
from vclip_jax.data.seen import check_fitted
from vclip_jax.data.tokenizer import Tokenizer
from vclip_jax.datasets.prepare import build_command
from vclip_jax.datasets.records import Record
from vclip_jax.evaluate import ZeroShotTask
from vclip_jax.logs import write_json
from vclip_jax.metrics import has_kappa
from vclip_jax.prompts import own, reading

DATA = "data.json"

PAIRS_SEED = 0
"""Of the order of held-back pairs, whatever `config.seed` is, so that runs can be compared."""

log = logging.getLogger("vclip_jax")


@dataclass(frozen=True)
class DrawnPairs(Sequence[Record]):
    """Some records of a source in an order of its own, a function of `PAIRS_SEED` and its length.

    A dataset of a folder for each class is stored class by class. In stored order the batches of a
    validation loss would hold one class each, and the first so many records the first classes.
    """

    source: Any
    """From `datasets.open_source`."""
    rows: Sequence[int]
    """Of the source."""

    @property
    def name(self) -> str:
        """As the source's."""
        return str(self.source.name)

    @property
    def split(self) -> str:
        """As the source's."""
        return str(self.source.split)

    @property
    def class_names(self) -> tuple[str, ...]:
        """As the source's."""
        return tuple(self.source.class_names)

    @property
    def splits(self) -> tuple[str, ...]:
        """As the source's."""
        return tuple(self.source.splits)

    def digest(self) -> str:
        """As the source's."""
        return str(self.source.digest())

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: SupportsIndex) -> Record:  # type: ignore[override]
        return self.source[self.rows[index.__index__()]]

    def __iter__(self) -> Iterator[Record]:
        return (self.source[row] for row in self.rows)


def draw_pairs(source: Any, most: int | None = None) -> DrawnPairs:
    """At most so many pairs of a source, see `DrawnPairs`; the same ones on any machine."""
    # Raw numbers, as NumPy promises only that these are the same in all of its versions.
    order = np.argsort(np.random.Philox(PAIRS_SEED).random_raw(len(source)), kind="stable")
    return DrawnPairs(source, order[:most].tolist())


def open_training_data(config: ConfigDict) -> tuple[Any, Any]:
    """The training and (if the dataset has one) the validation pairs, built if need be."""
    data = config.data
    _prepare("data", data, data.data_dir)
    train = _open("data.train_split", data.dataset, data.data_dir, data.train_split)
    if len(train) < config.global_batch_size:
        raise ValueError(f"{data.dataset} has {len(train)} records in {data.train_split}, fewer "
                         f"than config.global_batch_size={config.global_batch_size}")  # fmt: skip
    check_fitted(data.dataset, train, data.image_size, data.fit, data.augment)
    if not data.validation_split or not config.validation_batches:
        return train, None
    validation = _open("data.validation_split", data.dataset, data.data_dir, data.validation_split)
    pairs = draw_pairs(validation, config.validation_batches * config.global_batch_size)
    log.info("validation: %d of %d pairs, drawn with seed %d",
             len(pairs), len(validation), PAIRS_SEED)  # fmt: skip
    return train, pairs


def open_test_pairs(config: ConfigDict) -> Any:
    """The pairs that are looked at in the end alone; the dataset must be built. None without."""
    if not config.data.test_split:
        return None
    data = config.data
    return draw_pairs(_open("data.test_split", data.dataset, data.data_dir, data.test_split))


def _prepare(section: str, entry: ConfigDict, data_dir: str) -> None:
    """`datasets.prepare`, whose errors name the key."""
    try:
        datasets.prepare(entry.dataset, entry.source, data_dir)
    except datasets.SourceNeededError:
        raise
    except (ValueError, OSError) as error:
        key = f"{section}.{'source' if entry.source else 'dataset'}"
        raise config_checks.of_key(key, error) from error


def _open(key: str, name: str, data_dir: str, split: str) -> datasets.RecordSource:
    """The split that a key names; errors name the key."""
    with config_checks.naming(key):
        return datasets.open_source(name, data_dir, split)


def check_data(
    workdir: Path, sources: Mapping[str, Any], *, resumes: bool = False, save: bool = True
) -> None:
    """Write down what a run's data is, or hold it against what the run began with.

    Args:
        workdir: of the run; the digests are in its `data.json`.
        sources: "train", "validation", "test" or "evals.NAME" -> what was opened, or None.
        resumes: whether the run has figures already, which are of the data that it began with.
        save: of several processes one is to.

    Raises:
        ValueError: the training data is not what the run began with. Of other data that is said;
            either names all that differs.
    """
    path = workdir / DATA
    kept = config_lib.read(path) if path.exists() else {}
    known = dict(kept)
    if resumes and "train" in sources and "train" not in known:
        log.info("%s does not say what its data was: from now on it does, in %s", workdir, DATA)
    differ: dict[str, str] = {}
    for role, source in sources.items():
        if source is None or not (digest := source.digest()):
            continue
        name = f"{source.name}:{'+'.join(source.splits)}"
        now = {"data": name, "records": len(source), "digest": digest}
        before = known.get(role)
        if not resumes or before is None or before["data"] != name:
            known[role] = now
        elif before["digest"] != digest:
            differ[role] = (
                f"{name} had {before['records']:,} records (digest {before['digest'][:12]}), now "
                f"{len(source):,} ({digest[:12]})"
            )
    # Two roles may have the same split.
    line = f"{workdir} began with other data: {'; '.join(dict.fromkeys(differ.values()))}"
    if "train" in differ:
        raise ValueError(f"{line}: build it again from the same files, or choose another --workdir")
    if differ:
        log.warning("warning: %s; figures of before and after do not compare", line)
    if save and known != kept:
        write_json(path, known)


def open_train_batches(
    config: ConfigDict,
    mesh: Mesh,
    train: Any,
    tokenizer: AnyTokenizer,
    size: int,
    start_step: int = 0,
    *,
    few: bool = False,
) -> prefetch.DevicePrefetcher:
    """Global training batches of `size` pairs on the devices, from `start_step` on.

    For a `few` of them no processes are started.
    """
    side, length = config.data.image_size, config.tokenizer.context_length
    batch_bytes = size // jax.process_count() * (3 * side**2 + 4 * length + 8)
    processes = 0 if few else workers.how_many(config.data.workers, cores.usable(), batch_bytes)
    if processes:
        log.info("input: %d processes", processes)
    batches = pipeline.train_batches(
        train,
        tokenizer,
        seed=config.seed,
        global_batch_size=size,
        size=config.data.image_size,
        fit=config.data.fit,
        decode=config.data.decode,
        augment=named_policy(config.data.augment),
        enhance=config.data.enhance,
        shuffle=config.data.shuffle,
        context_length=config.tokenizer.context_length,
        start_step=start_step,
        rows=sharding.rows_of_process(mesh, size),
        num_threads=config.data.threads or None,
        num_workers=processes,
    )
    return prefetch.prefetch_to_device(batches, NamedSharding(mesh, sharding.BATCH))


def open_zero_shot_tasks(config: ConfigDict) -> list[ZeroShotTask]:
    """The evaluations of the config whose data is there or can be built; the others are named."""
    tasks = []
    for name, entry in config.evals.items():
        try:
            _prepare(f"evals.{name}", entry, config.data.data_dir)
        except datasets.SourceNeededError:
            log.info(
                "evaluation %s is skipped, %s is not built: %s (or --config.evals.%s.source=DIR)",
                name, entry.dataset, build_command(entry.dataset, config.data.data_dir), name,
            )  # fmt: skip
            continue
        source = _open(f"evals.{name}.split", entry.dataset, config.data.data_dir, entry.split)
        check_fitted(entry.dataset, source, config.data.image_size, config.data.fit)
        with config_checks.naming(f"evals.{name}.prompts"):
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
        tasks.append(ZeroShotTask(name, source, prompt_set))
        _check_labels(tasks[-1])
    return tasks


def _check_labels(task: ZeroShotTask) -> None:
    """Look for a photograph of every class.

    Raises:
        ValueError: no record has a label, or one has a label that no prompt is for.
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
            f"evaluation {task.name}: no label in {where}, so there is nothing to score: take it "
            "out of config.evals, or name a split with labels"
        )
    if missing := [name for number, name in enumerate(names) if number not in numbers]:
        log.warning("evaluation %s: no image in %s is of %s", task.name, where, ", ".join(missing))
    log.info(
        "evaluation %s: %d images of %s, classes %s (%s)", task.name, len(source), where,
        ", ".join(task.prompts.label_names),
        "in order" if task.prompts.labels_ordered else "without an order, so no kappa",
    )  # fmt: skip


def check_readings(
    config: ConfigDict,
    tokenizer: AnyTokenizer,
    tasks: Sequence[ZeroShotTask],
    captions: Sequence[str],
    *,
    most_unknown: float,
) -> None:
    """Read prompts and some captions as the model will; what it does not know, or cuts, is logged.

    Raises:
        ValueError: two classes of a task are the same to the model, or it does not know more than
            `most_unknown` of the captions' tokens.
    """
    remedy = "set config.tokenizer.vocab to a vocabulary of their language, or to 'captions'"
    if config.restore_from:  # which brings its vocabulary
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
    config: ConfigDict, tasks: Sequence[ZeroShotTask], train: Any, tokenizer: AnyTokenizer
) -> prompts.PromptSet | None:
    """What the model will be asked where nobody says otherwise, see `prompts.own`."""
    if tasks:  # which have been read before
        return tasks[0].prompts
    candidates = [prompts.load(e.prompts) for e in config.evals.values() if e.prompts != "labels"]
    if len(train.class_names) > 1:
        labels = {label: label for label in train.class_names}
        candidates.append(prompts.from_phrases(labels, f"classes of {train.name}"))
    if config.restore_from and (earlier := own.load(Path(config.restore_from))) is not None:
        candidates.append(earlier)
    length = config.tokenizer.context_length
    return next((found for found in candidates if own.reads(found, tokenizer, length)), None)


def check_words(config: ConfigDict) -> None:
    """Load vocabulary and prompts once: a wrong name should not cost the building of a dataset."""
    config_checks.check_names(config)
    if config.tokenizer.vocab != "captions":
        with config_checks.naming("tokenizer.vocab"):
            Tokenizer.load(config.tokenizer.vocab)


def load_tokenizer(config: ConfigDict, train: Any, workdir: Path) -> AnyTokenizer:
    """The run's own vocabulary if it has one, else what the config says, kept in the workdir."""
    if config_lib.has_begun(workdir) and (own := in_folder(workdir)) is not None:
        return own
    restored = in_folder(config.restore_from) if config.restore_from else None
    tokenizer: AnyTokenizer
    if restored is not None:
        tokenizer = restored
    elif config.tokenizer.vocab == "captions":
        tokenizer = Tokenizer.from_captions(record["caption"] for record in train)
    else:
        tokenizer = Tokenizer.load(config.tokenizer.vocab)
    if jax.process_index() == 0:
        for left in (TOKENIZER, VOCAB):  # by a start that was refused
            (workdir / left).unlink(missing_ok=True)
        tokenizer.save(workdir / file_name(tokenizer))
    return tokenizer
