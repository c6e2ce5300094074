"""The page of several runs side by side: `comparison.html`."""

import json
import os
from collections.abc import Mapping, Sequence
from typing import Any

from etils import epath

from vclip_jax.config.saved import flatten
from vclip_jax.evaluation.metrics import bootstrap, predictions
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
    """Writes one page about several runs, and the tests behind it beside it, as JSON.

    A run in progress, or one without evaluation, is shown with what there is of it.

    Args:
      workdirs: two to seven, as there are colours; of runs.
      output: the page, a path ending in .html; `comparison.html` in the first workdir if None.
      resamples: behind the paired tests; 0 for no tests.

    Returns:
      The path of the page.

    Raises:
      FileNotFoundError: a workdir is not a folder.
      ValueError: one line: too few or too many workdirs, one of them given twice, one of several
        systems, or an output of another kind.
    """
    if not 2 <= len(workdirs) <= plots.COLOURS:
        raise ValueError(f"{len(workdirs)} runs: a page compares 2 to {plots.COLOURS}")
    target = epath.Path(workdirs[0]) / NAME if output is None else epath.Path(output)
    if target.suffix != ".html":
        raise ValueError(f"{target}: the page's name ends in .html")
    folders = dict(zip(labels(workdirs), map(epath.Path, workdirs), strict=True))
    for folder in folders.values():
        if is_systems_workdir(folder):
            raise ValueError(
                f"{folder} is of several systems, which its own report compares; name "
                f"{folder / 'systems'}/NAME for one of them"
            )
    runs = {label: read_run(folder) for label, folder in folders.items()}
    tests, notices = _tests(folders, runs, resamples) if resamples else ({}, [])
    target.parent.mkdir(parents=True, exist_ok=True)
    rows = [{"dataset": name, **row} for name, found in tests.items() for row in found]
    write_text(target.with_suffix(".json"), json.dumps(rows, indent=1, ensure_ascii=False))
    return put_page(target, render(runs, tests, notices))


def labels(workdirs: Sequence[str | os.PathLike[str]]) -> list[str]:
    """What the runs are called: the last parts of their paths, as few as tell them apart.

    Raises:
      ValueError: one of them is given twice.
    """
    names = [os.fspath(workdir) for workdir in workdirs]
    paths = [name if "://" in name else os.path.abspath(name) for name in names]
    if len(set(paths)) < len(paths):
        twice = next(name for name, path in zip(names, paths, strict=True) if paths.count(path) > 1)
        raise ValueError(f"{twice} is given twice")
    parts = [[part for part in path.split("/") if part] for path in paths]
    count = 1
    while len({tuple(own[-count:]) for own in parts}) < len(parts):
        count += 1
    return ["/".join(own[-count:]) for own in parts]


def render(
    runs: Mapping[str, Run],
    tests: Mapping[str, Sequence[Mapping[str, Any]]],
    more_notices: Sequence[str] = (),
) -> str:
    """The page as text; `tests` are dataset -> rows of `predictions.compare_each`."""
    datasets = datasets_of(runs)
    shared = averaged(
        {name: {} for name in datasets if all(name in run.zero_shot for run in runs.values())}
    )
    logs = {label: run.metrics for label, run in runs.items()}
    about = {label: facts(run) for label, run in runs.items()}
    return render_template(
        "comparison.html",
        names=list(runs),
        notices=[*_notices(runs), *more_notices],
        facts={label: own for label, own in about.items() if own},
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
        config=differences({label: run.config for label, run in runs.items() if run.config}),
        compared=[label for label, run in runs.items() if run.config],
    )


def datasets_of(runs: Mapping[str, Run]) -> list[str]:
    """Of all evaluations, in the order in which they occur."""
    return list(dict.fromkeys(name for run in runs.values() for name in run.zero_shot))


def differences(configs: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The settings that are not the same in all configs.

    Args:
      configs: a run's name -> its config.

    Returns:
      Dicts of `key`, dotted, and `values`, each run's in words, None where it has no such key.
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
    """What could not be read of each run, in words."""
    lines = []
    for label, run in runs.items():
        lines += [f"{label}: {notice}" for notice in run.notices]
        if lost := curves.not_finite(run.metrics):
            lines.append(
                f"{label}: metrics.jsonl: {lost} values are not finite and are missing in the "
                "curves."
            )
        if not run.config:
            lines.append(f"{label} has no config.json, so its settings are not compared.")
    return lines


def _of_dataset(runs: Mapping[str, Run], name: str) -> dict[str, Any]:
    """Run -> its result, of those that have one."""
    return {label: run.zero_shot[name] for label, run in runs.items() if name in run.zero_shot}


def _overview(label: str, run: Run, datasets: list[str], shared: list[str]) -> dict[str, Any]:
    """A run: each dataset's accuracy and interval, and the mean over those that all runs have."""
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
    """Split -> run -> its figures."""
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
    """Dataset -> the paired test of every two runs that have evaluated it; and notices."""
    tests, notices = {}, []
    for name in datasets_of(runs):
        files = {
            label: predictions.path_of(folders[label], name) for label in _of_dataset(runs, name)
        }
        if len(files) > 1:
            tests[name], more = predictions.compare_each(files, name, resamples=resamples)
            notices += more
    return tests, notices
