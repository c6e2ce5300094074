"""Everything that is measured on a model, and the files that it is written to."""

import hashlib
import json
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
from ml_collections import ConfigDict

from vclip_jax.evaluation.metrics import predictions
from vclip_jax.evaluation.metrics.table import averaged, format_table
from vclip_jax.evaluation.tasks import EVALUATIONS, ZERO_SHOT, ZeroShotTask
from vclip_jax.evaluation.zero_shot import (
    Embedded,
    embed_images,
    embed_pairs,
    evaluate_pairs,
    evaluate_zero_shot,
    flat_metrics,
    zero_shot_points,
)
from vclip_jax.files.writing import write_json
from vclip_jax.predict.scorer import Scorer, Variables
from vclip_jax.tracking.metrics_log import MetricsLog
from vclip_jax.tracking.pictures import confusion_picture, project
from vclip_jax.tracking.trackers import Trackers

PAIRS_FORMAT = 1
"""Part of `Measurement.evaluation`; counts up whenever held-back pairs are measured otherwise."""


@dataclass
class Measurement:
    """A model's evaluations, in a workdir; call it with variables and their step."""

    scorer: Scorer
    validation: Any
    """Held-back pairs of the training dataset, or None."""
    tasks: list[ZeroShotTask]
    config: ConfigDict
    workdir: Path
    metrics_log: MetricsLog
    write_report: Callable[[Path], object]
    """Rewrites the page of a workdir from the files in it."""
    test: Any = None
    """Its pairs that are looked at in the end alone, or None."""
    trackers: Trackers = field(default_factory=Trackers)
    """They are shown what is new."""
    results: dict[str, Any] = field(default_factory=dict)
    """The content of `zero_shot.json`."""

    def __call__(self, variables: Variables, step: int, *, final: bool = False) -> None:
        """Measure everything, write it down, rewrite the report.

        What decides nothing is left to the `final` evaluation: the test pairs and the heat maps.
        """
        lead = jax.process_index() == 0
        values: dict[str, float] = {}
        retrieval: dict[str, Any] = {}
        examples: dict[str, Any] = {}
        self.results.clear()
        if self.validation is not None:
            held_back = embed_pairs(self.scorer, variables, self.validation, self.config)
            values, retrieval = evaluate_pairs(held_back, variables, self.config)
        if final and self.test is not None:
            tested = embed_pairs(self.scorer, variables, self.test, self.config)
            more, found = evaluate_pairs(tested, variables, self.config, "test")
            values, retrieval = values | more, {**retrieval, "test": found}
        failed: dict[str, Exception] = {}
        for task, embedded in self._embedded_tasks(variables):
            try:
                if isinstance(embedded, Exception):
                    raise embedded
                if task.kind != ZERO_SHOT:
                    values |= self._own_figures(variables, task, embedded)
                    continue
                scored = evaluate_zero_shot(
                    self.scorer,
                    variables,
                    task,
                    embedded,
                    self.config,
                    keys=lead,
                    heat=final and self.config.heat_maps,
                )
            except (ValueError, OSError) as error:
                failed[task.name] = error
                continue
            self.results.update(scored.results)
            examples[task.name] = scored.examples
            for name, answers in scored.predictions.items():
                predictions.save(predictions.path_of(self.workdir, name), answers)
        values |= flat_metrics(self.results)
        for result in self.results.values():
            result["step"] = step
        new = self.metrics_log.write(step, values, self.evaluation)
        if self.trackers:
            matrices = [
                confusion_picture(name, result["confusion"], result["classes"])
                for name, result in self.results.items()
                if f"eval/{name}/accuracy" in new
            ]
            self.trackers.pictures(step, matrices)
            if "eval/validation/loss" in new:
                self.trackers.embeddings(
                    project("validation", held_back.images, self.validation, self.config)
                )
        if lead:
            if retrieval:
                write_json(self.workdir / "retrieval.json", retrieval)
            write_json(self.workdir / "zero_shot.json", self.results)
            write_json(self.workdir / "examples.json", examples)
            self.write_report(self.workdir)
        if failed:
            reasons = "; ".join(f"evaluation {name}: {error}" for name, error in failed.items())
            raise ValueError(f"{reasons} (what could be measured is in {self.workdir})")

    def log_points(self, variables: Variables, step: int) -> None:
        """Measure what `metrics.jsonl` holds and write that down alone: one point of a curve."""
        values: dict[str, float] = {}
        if self.validation is not None:
            held_back = embed_pairs(self.scorer, variables, self.validation, self.config)
            values, _ = evaluate_pairs(held_back, variables, self.config)
        for task, embedded in self._embedded_tasks(variables):
            if isinstance(embedded, Exception):
                raise embedded
            if task.kind != ZERO_SHOT:
                values |= self._own_figures(variables, task, embedded)
                continue
            values |= zero_shot_points(self.scorer, variables, task, embedded)
        self.metrics_log.write(step, values, self.evaluation)

    def _own_figures(
        self, variables: Variables, task: ZeroShotTask, embedded: Embedded
    ) -> dict[str, float]:
        """What a recipe's own evaluation measures, under the task's name."""
        figures = EVALUATIONS[task.kind](self.scorer, variables, task, embedded)
        return {f"eval/{task.name}/{figure}": float(value) for figure, value in figures.items()}

    @cached_property
    def evaluation(self) -> str:
        """What is asked, as eight hexadecimal digits: figures of another name do not compare."""
        pairs, batch = self.validation, self.config.global_batch_size
        asked = [
            [
                (t.name, t.source.name, t.source.split, len(t.source), asdict(t.prompts))
                for t in self.tasks
            ],
            None if pairs is None else [pairs.name, pairs.split, len(pairs), batch],
            PAIRS_FORMAT,
        ] + [(t.name, t.kind) for t in self.tasks if t.kind != ZERO_SHOT]
        return hashlib.sha256(json.dumps(asked).encode()).hexdigest()[:8]

    def is_logged(self, step: int) -> bool:
        """Whether `metrics.jsonl` has a point of everything that is measured, as it is measured.

        Of several processes all must measure the same; they may not see one file, so: no.
        """
        if jax.process_count() > 1 or any(task.kind != ZERO_SHOT for task in self.tasks):
            return False  # which figures a recipe's own evaluation has is not known before
        keys = [f"eval/{task.name}/accuracy" for task in self.tasks]
        keys += ["eval/validation/loss"] if self.validation is not None else []
        return self.metrics_log.has(step, keys, self.evaluation)

    def _embedded_tasks(
        self, variables: Variables
    ) -> Iterator[tuple[ZeroShotTask, Embedded | Exception]]:
        """The tasks with their images, or why these cannot be had; those on the same images share
        them, one after another."""
        splits = [(task.source.name, task.source.split) for task in self.tasks]
        for split in dict.fromkeys(splits):
            together = [task for task, own in zip(self.tasks, splits, strict=True) if own == split]
            embedded: Embedded | Exception
            try:
                embedded = embed_images(self.scorer, variables, together[0], self.config)
            except (ValueError, OSError) as error:
                embedded = error
            for task in together:
                yield task, embedded

    def print_table(self) -> None:
        """The last results, on standard output."""
        if jax.process_index():
            return
        if self.results:
            print(format_table(self.results, mean_of=averaged(self.results)))
        print(f"report: {self.workdir / 'report.html'}")
