"""The comparison of several runs: `comparison.html`."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from vclip_jax.config.saved import flatten
from vclip_jax.evaluation.metrics import bootstrap, paired, predictions
from vclip_jax.evaluation.metrics.classification import mean_over
from vclip_jax.evaluation.metrics.table import averaged
from vclip_jax.files.writing import write_text
from vclip_jax.report import curves, figures, plots
from vclip_jax.report.figures import METRICS
from vclip_jax.report.reader import Run, read_run
from vclip_jax.report.run_page import facts
from vclip_jax.report.table1_page import is_systems_workdir
from vclip_jax.report.templates import put_page, render_template

NAME = "comparison.html"
_ABSENT = object()


def write_comparison(
    workdirs: Sequence[str | os.PathLike[str]],
    output: str | os.PathLike[str] | None = None,
    *,
    resamples: int = bootstrap.RESAMPLES,
) -> epath.Path:
    """Write a page that compares several runs, and its tests as JSON in the same folder.

    Runs may be in progress or without an evaluation; the page shows what exists.

    Args:
      workdirs: two to seven workdirs of runs (there are seven colours).
      output: the page, a path ending in .html; None for `comparison.html` in the first workdir.
      resamples: the number of resamples of the paired tests; 0 for no tests.

    Returns:
      The path of the page.

    Raises:
      FileNotFoundError: a workdir is not a folder.
      ValueError: one line: there are too few or too many workdirs, one is given twice or holds
        several systems, or `output` does not end in .html.
    """
    if not 2 <= len(workdirs) <= plots.COLOURS:
        raise ValueError(f"{len(workdirs)} runs: a page compares 2 to {plots.COLOURS}")
    target = epath.Path(workdirs[0]) / NAME if output is None else epath.Path(output)
    if target.suffix != ".html":
        raise ValueError(f"{target}: the page's name must end in .html")
    folders = dict(zip(labels(workdirs), map(epath.Path, workdirs), strict=True))
    for folder in folders.values():
        if is_systems_workdir(folder):
            raise ValueError(
                f"{folder} holds several systems, which its own report compares; name "
                f"{folder / 'systems'}/NAME for one of them"
            )
    runs = {label: read_run(folder) for label, folder in folders.items()}
    tests, notices = _tests(folders, runs, resamples) if resamples else ({}, [])
    target.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"dataset": name, **row} for name, pairs in tests.items() for row in pairs]
    write_text(target.with_suffix(".json"), json.dumps(rows, indent=1, ensure_ascii=False))
    return put_page(target, render(runs, tests, notices))


def labels(workdirs: Sequence[str | os.PathLike[str]]) -> list[str]:
    """Return the runs' labels: as few last parts of their paths as make them different.

    Raises:
      ValueError: a workdir is given twice.
    """
    names = [os.fspath(workdir) for workdir in workdirs]
    paths = [name if "://" in name else os.path.abspath(name) for name in names]
    if len(set(paths)) < len(paths):
        twice = next(name for name, path in zip(names, paths, strict=True) if paths.count(path) > 1)
        raise ValueError(f"{twice} is given twice")
    parts = [[part for part in path.split("/") if part] for path in paths]
    count = 1
    while len({tuple(path[-count:]) for path in parts}) < len(parts):
        count += 1
    return ["/".join(path[-count:]) for path in parts]


def render(
    runs: Mapping[str, Run],
    tests: Mapping[str, Sequence[Mapping[str, Any]]],
    more_notices: Sequence[str] = (),
) -> str:
    """Return the page as text; `tests` are dataset -> rows of `paired.compare_each`."""
    datasets = datasets_of(runs)
    shared = averaged(
        {name: {} for name in datasets if all(name in run.zero_shot for run in runs.values())}
    )
    logs = {label: run.metrics for label, run in runs.items()}
    facts_of = {label: facts(run) for label, run in runs.items()}
    return render_template(
        "comparison.html",
        names=list(runs),
        notices=[*_notices(runs), *more_notices],
        facts={label: entries for label, entries in facts_of.items() if entries},
        datasets=datasets,
        shared=shared,
        overview=[_overview(label, run, datasets, shared) for label, run in runs.items()],
        sections=[
            {
                "name": name,
                "rows": figures.zero_shot_rows(_of_dataset(runs, name)),
                "tests": figures.comparison_tables(tests.get(name, ())),
            }
            for name in datasets
        ],
        metrics=METRICS,
        retrieval=_retrieval(runs),
        legend=plots.legend(list(runs)),
        training=curves.overlaid_training(logs),
        validation=curves.overlaid_validation(logs, datasets),
        config=differences({label: run.settings for label, run in runs.items() if run.settings}),
        compared=[label for label, run in runs.items() if run.settings],
    )


def datasets_of(runs: Mapping[str, Run]) -> list[str]:
    """Return the datasets of all evaluations, in the order in which they occur."""
    return list(dict.fromkeys(name for run in runs.values() for name in run.zero_shot))


def differences(configs: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the settings that differ between configs.

    Args:
      configs: a run's name -> its config.

    Returns:
      Dicts of `key`, dotted, and `values`, each run's value as text, or None without such a key.
    """
    flat = [flatten(config, empty=True) for config in configs.values()]
    rows = []
    for key in dict.fromkeys(key for one in flat for key in one):
        values = [one.get(key, _ABSENT) for one in flat]
        plain = [None if value is _ABSENT else _json(value) for value in values]
        if len(set(plain)) > 1:
            words = [
                value if isinstance(value, str) else text
                for value, text in zip(values, plain, strict=True)
            ]
            rows.append({"key": key, "values": words})
    return rows


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)


def _notices(runs: Mapping[str, Run]) -> list[str]:
    """Return sentences about the files of each run that could not be read."""
    lines = []
    for label, run in runs.items():
        lines += [f"{label}: {notice}" for notice in run.notices]
        if lost := curves.not_finite(run.metrics):
            lines.append(
                f"{label}: metrics.jsonl: {lost} values are not finite and missing from the curves."
            )
        if not run.settings:
            lines.append(f"{label} has no config.json, so its settings are not compared.")
    return lines


def _of_dataset(runs: Mapping[str, Run], name: str) -> dict[str, Any]:
    """Return run -> result, for runs that have one."""
    return {label: run.zero_shot[name] for label, run in runs.items() if name in run.zero_shot}


def _overview(label: str, run: Run, datasets: list[str], shared: list[str]) -> dict[str, Any]:
    """Return a run's row: accuracies with intervals, and the mean over datasets of all runs."""
    results = [run.zero_shot.get(name) for name in datasets]
    return {
        "name": label,
        "cells": [
            (result["accuracy"], figures.span(result["accuracy_ci95"])) if result else (None, "")
            for result in results
        ],
        "mean": mean_over(run.zero_shot, "accuracy", shared) if len(shared) > 1 else None,
    }


def _retrieval(runs: Mapping[str, Run]) -> dict[str, dict[str, Any]]:
    """Return split -> run -> figures."""
    splits = dict.fromkeys(split for run in runs.values() for split in run.retrieval)
    return {
        split: {
            label: run.retrieval[split] for label, run in runs.items() if split in run.retrieval
        }
        for split in splits
    }


def _tests(
    folders: Mapping[str, epath.Path], runs: Mapping[str, Run], resamples: int
) -> tuple[dict[str, list[dict[str, Any]]], list[str]]:
    """Return dataset -> paired tests of every two runs that have evaluated it, and notices."""
    tests, notices = {}, []
    for name in datasets_of(runs):
        files = {
            label: predictions.path_of(folders[label], name) for label in _of_dataset(runs, name)
        }
        if len(files) > 1:
            tests[name], more = paired.compare_each(files, name, resamples=resamples)
            notices += more
    return tests, notices
