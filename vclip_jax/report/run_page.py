"""The report of a run, `report.html`: one file that needs no network, script or other file."""

import os
import re
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from fractions import Fraction
from typing import Any

import numpy as np
from etils import epath

from vclip_jax.config.saved import flatten
from vclip_jax.data.mixture import drawn_from
from vclip_jax.data.order import EXAMPLES
from vclip_jax.data.shares import Shares
from vclip_jax.datasets.catalog import DATASETS
from vclip_jax.evaluation.metrics import paired, paper
from vclip_jax.evaluation.metrics.classification import mean_over
from vclip_jax.evaluation.metrics.table import averaged
from vclip_jax.files.errors import few
from vclip_jax.report import curves, figures, tables, unit_curves
from vclip_jax.report.figures import METRICS, class_names, is_number
from vclip_jax.report.headline import headline
from vclip_jax.report.reader import Run, read_run
from vclip_jax.report.templates import put_page, render_template

_MEANS = (*METRICS, "chance", "majority")
_RENDERED = "Rendered by vclip_jax, not photographs"
_WEIGHT = re.compile(r"[1-9][0-9]{0,19}(/[1-9][0-9]{0,19})?")
_MOST_GROUPS = 1000
_IMAGE = re.compile(r"data:image/(?:png|jpeg);base64,[A-Za-z0-9+/]+={0,2}")


def write_report(workdir: str | os.PathLike[str]) -> epath.Path:
    """Write `workdir/report.html` from the files that exist, and return its path.

    The run may be in progress or without an evaluation: sections without data are left out. The
    page is written in one step, so that readers never see half of it. Evaluations of the run on the
    same images (such as two prompt sets) are compared.

    Raises:
      FileNotFoundError: `workdir` is not a folder.
    """
    folder = epath.Path(workdir)
    run = read_run(folder)
    comparisons, notices = paired.compare_systems(folder, list(run.zero_shot))
    return put_page(folder / "report.html", render(run, comparisons, notices))


def render(
    run: Run, comparisons: Iterable[Mapping[str, Any]] = (), more_notices: Iterable[str] = ()
) -> str:
    """Return the page as text; `comparisons` are from `evaluation.metrics.paired`."""
    training, lost = curves.training_curves(run.metrics)
    validation, lost_too = curves.validation_curves(run.metrics, run.zero_shot)
    notices = [*run.notices, *more_notices]
    if lost + lost_too:
        notices.append(
            f"metrics.jsonl: {lost + lost_too} values are not finite and missing from the curves."
        )
    sources = sources_of(run.zero_shot)
    examples = _photographs_first(example_groups(run, notices), sources)
    rows = figures.zero_shot_rows(_photographs_first(run.zero_shot, sources))
    names = averaged(run.zero_shot)
    rendered = {name for name, words in sources.items() if words == _RENDERED}
    comparisons = list(comparisons)
    data = tables.tables_of(run)
    return render_template(
        "template.html",
        title=title_of(run),
        facts=facts(run),
        headline=headline(run, rendered),
        notices=notices,
        rows=rows,
        averaged=names,
        mean={key: mean_over({r["name"]: r for r in rows}, key, names) for key in _MEANS},
        undefined=figures.undefined(run.zero_shot),
        table_1=figures.table_1(run.zero_shot),
        paper=paper,
        comparisons=figures.comparison_tables(comparisons),
        curves=unit_curves.charts(run.curves, run.zero_shot),
        thresholds=[table for table in data if table.name.endswith("-thresholds")],
        subgroups=[table for table in data if "-by-" in table.name],
        findings=[table for table in data if table.name.endswith("-findings")],
        training=training,
        validation=validation,
        one_step=[table for table in data if table.name == "evaluations"],
        classes=figures.class_tables(run.zero_shot),
        matrices=figures.confusions(run.zero_shot),
        reliability=figures.reliability(run.zero_shot),
        sensitivity=figures.sensitivity(run.zero_shot),
        retrieval=run.retrieval,
        examples=examples,
        sources=sources,
        heat=any(e["heat"] for groups in examples.values() for g in groups.values() for e in g),
        prompts={
            name: figures.prompt_lists(result)
            for name, result in run.zero_shot.items()
            if result.get("prompts")
        },
        config=flatten(run.settings, empty=True),
        environment=flatten(run.machine, empty=True),
    )


def _photographs_first(results: Mapping[str, Any], sources: Mapping[str, str]) -> dict[str, Any]:
    """Move real photographs before rendered stand-ins: readers look at the first row."""
    return dict(sorted(results.items(), key=lambda item: sources.get(item[0]) == _RENDERED))


# --- headline ------------------------------------------------------------------------------------


def title_of(run: Run) -> str:
    """Return the name in the run's config, else the name of its folder."""
    name = run.config.get("name")
    return name if isinstance(name, str) and name else run.name


def facts(run: Run) -> dict[str, str]:
    """Return the facts at the top of the page: progress, dates, time, hardware, code."""
    out: dict[str, str] = {}
    if run.metrics:
        out["Progress"] = _progress(run)
    if drawn := drawn_examples(run):
        each = (f"{count:,} from {name}" for name, count in drawn.items())
        out["Training examples"] = few(each, 20)
    if run.start:
        out["Started from"] = _origin(run.start)
    if run.scored:
        out["Scored model"] = _scored(run.scored)
    times = [row["time"] for row in run.metrics if is_number(row.get("time"))]
    started = run.machine.get("started")
    if started is not None or times:
        out["Started"] = _started(started) if started is not None else _date(times[0])
    if times or run.changed:
        out["Last entry"] = _date(times[-1] if times else run.changed or 0.0)
    if (seconds := seconds_in_steps(run)) is not None:
        out["Time in training, with compilation"] = duration(seconds)
    elif len(times) > 1:
        out["First to last entry"] = duration(times[-1] - times[0])
    if hardware := hardware_of(run.machine):
        out["Hardware"] = hardware
    commit = run.machine.get("git_commit")
    if isinstance(commit, str) and commit:
        out["Code"] = f"commit {commit[:12]}"
    return out


def _origin(start: Mapping[str, Any]) -> str:
    step = f", step {start['step']:,}" if type(start.get("step")) is int else ""
    return f"{start.get('source')}{step} ({start.get('taken')}), trained further from step 0"


def _scored(scored: Mapping[str, Any]) -> str:
    step = f", step {scored['step']:,}" if type(scored.get("step")) is int else ""
    return f"{scored.get('model')}{step}, SHA-256 {str(scored.get('sha256'))[:16]}"


def _progress(run: Run) -> str:
    step = int(run.metrics[-1]["step"])
    total = run.config.get("total_steps")
    if not is_number(total):
        return f"step {step:,}"
    state = "complete" if step >= total else "running, or stopped early"
    return f"step {step:,} of {int(total):,} ({state})"


def drawn_examples(run: Run) -> dict[str, int]:
    """Return dataset -> how many training examples of a mixture were from it up to the last row.

    A run on one dataset, and one whose files do not tell the mixture, give nothing.
    """
    train, seed = run.data.get("train"), run.config.get("seed")
    batch = run.config.get("global_batch_size")
    pairs = train.get("drawn") if isinstance(train, Mapping) else None
    if not isinstance(seed, int) or not isinstance(batch, int) or not 0 < batch < 2**31:
        return {}
    if not run.metrics or not isinstance(pairs, list) or len(pairs) > _MOST_GROUPS:
        return {}
    examples = int(run.metrics[-1]["step"]) * batch
    if seed < 0 or not 0 <= examples < EXAMPLES:
        return {}
    names, weights = [], []
    for pair in pairs:
        if not (isinstance(pair, list) and len(pair) == 2 and _WEIGHT.fullmatch(str(pair[1]))):
            return {}
        names.append(str(pair[0]))
        weights.append(Fraction(pair[1]))
    try:
        return drawn_from(names, Shares(tuple(weights)), examples, seed)
    except ValueError:  # a weight without a place
        return {}


def seconds_in_steps(run: Run) -> float | None:
    """Return steps times batch over `examples_per_second`, summed over the log's training rows."""
    batch = run.config.get("global_batch_size")
    lines = [r for r in run.metrics if is_number(r.get("examples_per_second"))]
    lines = [r for r in lines if r["examples_per_second"] > 0]
    if not is_number(batch) or not lines:
        return None
    steps = np.diff([0, *(r["step"] for r in lines)])
    return float(
        sum(n * batch / r["examples_per_second"] for n, r in zip(steps, lines, strict=True))
    )


def hardware_of(environment: Mapping[str, Any]) -> str:
    """Describe devices in words, from `devices` (a list of names or of objects with a `kind`)."""
    devices = environment.get("devices")
    if isinstance(devices, list):
        kinds = Counter(
            str(d.get("device_kind", d.get("kind", d)) if isinstance(d, Mapping) else d)
            for d in devices
        )
        text = ", ".join(f"{count} × {kind}" for kind, count in kinds.items())
    else:
        count, kind = environment.get("device_count"), environment.get("device_kind", devices)
        text = f"{count} × {kind}" if count and kind else str(kind or "")
    hosts = environment.get("process_count", environment.get("hosts"))
    return f"{text}, {hosts} hosts" if text and type(hosts) is int and hosts > 1 else text


def duration(seconds: float) -> str:
    """Format a span of time to about three digits: 42 s, 12 min 5 s, 7 h 30 min, 3 d 4 h."""
    whole = round(seconds)
    if whole < 60:
        return f"{seconds:.3g} s"
    minutes, s = divmod(whole, 60)
    hours, m = divmod(minutes, 60)
    days, h = divmod(hours, 24)
    if days:
        return f"{days} d {h} h"
    return f"{hours} h {m} min" if hours else f"{minutes} min {s} s"


def _started(words: Any) -> str:
    """Format the start time of `environment.json`; other text is returned unchanged."""
    try:
        return _date(datetime.strptime(str(words), "%Y-%m-%d %H:%M:%S %z").timestamp())
    except ValueError:
        return str(words)


def _date(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")


# --- examples ------------------------------------------------------------------------------------


def example_groups(run: Run, notices: list[str]) -> dict[str, dict[str, list[dict[str, Any]]]]:
    """Return dataset -> {"Correct": [...], "Wrong": [...]} of the examples with a usable image."""
    out: dict[str, dict[str, list[dict[str, Any]]]] = {}
    for dataset, examples in run.examples.items():
        result = run.zero_shot.get(dataset)
        good = [e for e in examples if _is_example(e)] if isinstance(examples, list) else []
        bad = len(examples) - len(good) if isinstance(examples, list) else 1
        if bad:
            notices.append(f"examples.json: {bad} examples of {dataset} are not usable.")
        groups: dict[str, list[dict[str, Any]]] = {"Correct": [], "Wrong": []}
        for example in good:
            entry = _example(example, class_names(result) if result else None)
            groups["Correct" if entry["right"] else "Wrong"].append(entry)
        out[dataset] = {verdict: shown for verdict, shown in groups.items() if shown}
    return {dataset: groups for dataset, groups in out.items() if groups}


def sources_of(zero_shot: Mapping[str, Any]) -> dict[str, str]:
    """Return evaluation -> the origin and the licence of its images, if they are known."""
    out = {}
    for name, result in zero_shot.items():
        base = str(result.get("dataset")).partition("/")[0]
        if base == "synthetic":
            out[name] = _RENDERED
        elif base in DATASETS and DATASETS[base].licence:
            out[name] = DATASETS[base].line
    return out


def _is_example(example: Any) -> bool:
    if not isinstance(example, Mapping):
        return False
    probabilities, label = example.get("probabilities"), example.get("label")
    return (
        _is_image(example.get("image"))
        and ("heat" not in example or _is_image(example["heat"]))
        and isinstance(probabilities, list)
        and all(is_number(p) for p in probabilities)
        and type(label) is int
        and 0 <= label < len(probabilities)
    )


def _is_image(uri: Any) -> bool:
    return isinstance(uri, str) and _IMAGE.fullmatch(uri) is not None


def _example(example: Mapping[str, Any], names: list[str] | None) -> dict[str, Any]:
    probabilities, label = example["probabilities"], example["label"]
    if names is None or len(names) != len(probabilities):
        names = [f"class {index}" for index in range(len(probabilities))]
    ranked = sorted(range(len(probabilities)), key=lambda c: -probabilities[c])
    shown = ranked[:3] if label in ranked[:3] else [*ranked[:2], label]
    return {
        "image": example["image"],
        "heat": example.get("heat"),
        "truth": names[label],
        "answer": names[ranked[0]],
        "right": ranked[0] == label,
        "scores": [
            {"name": names[c], "value": probabilities[c], "truth": c == label} for c in shown
        ],
    }
