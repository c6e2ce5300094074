"""The paper's Table 1: several systems on the same images (`configs/table1.py`).

Each system is evaluated like any model, in its own workdir (`WORKDIR/systems/NAME`, with its
report); this module collects the rows. The row of a system without weights says where to get them;
no figure is ever filled in.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ml_collections import ConfigDict

from vclip_jax import prompts
from vclip_jax.config.checks import naming
from vclip_jax.evaluation.metrics import paper
from vclip_jax.evaluation.metrics.table import number
from vclip_jax.files import packaged

Evaluate = Callable[[ConfigDict, Path], Mapping[str, Any]]


def evaluate_systems(config: ConfigDict, workdir: Path, evaluate: Evaluate) -> dict[str, Any]:
    """Evaluate every system of `config.systems` that has weights.

    Args:
        config: a config; each system is scored on its `evals` with prompts from the system's own
            folder.
        workdir: the workdir of `table1.json`, and of each system's files in `systems/NAME`.
        evaluate: a function that evaluates one model and returns its results, see `main.evaluate`.

    Returns:
        The content of `table1.json`: system -> `weights`, `missing` (why there is no result, or
        None), `results` (the content of its `zero_shot.json`).

    Raises:
        ValueError: a prompt set does not exist; raised before anything is computed.
    """
    runs = {name: _config_of(config, name) for name in paper.in_order_of_rows(config.systems)}
    table: dict[str, Any] = {}
    for name, run in runs.items():
        entry = config.systems[name]
        missing = _missing(name, entry)
        results: Mapping[str, Any] = {}
        if missing is None:
            # Keep results in memory, as only the first of several processes writes files.
            with naming(f"systems.{name}"):
                results = evaluate(run, workdir / "systems" / name)
        table[name] = {"weights": entry.weights, "missing": missing, "results": results}
    return table


def _config_of(config: ConfigDict, name: str) -> ConfigDict:
    """Return the config that evaluates one system."""
    run = config.copy_and_resolve_references()
    run.restore_from = config.systems[name].weights
    run.systems = ConfigDict()
    run.calibration = "off"  # as the paper's systems are
    for task in run.evals:
        if run.evals[task].prompts != "labels":
            words = f"{config.systems[name].prompts}/{run.evals[task].prompts.rpartition('/')[2]}"
            with naming(f"systems.{name}.prompts"):
                prompts.load(words)
            run.evals[task].prompts = words
    return run


def _missing(name: str, entry: ConfigDict) -> str | None:
    hint = f"; weights: {entry.where}" if entry.where else ""
    if not entry.weights:
        return f"no weights: set --config.systems.{name}.weights{hint}"
    if not entry.weights.startswith("hub:") and not packaged.path_of(entry.weights).exists():
        return f"there is no {entry.weights}{hint}"
    return None


def format_systems(table: Mapping[str, Any]) -> str:
    """Format a table with a row for each system and a column for each dataset.

    Cells have the accuracy with its interval, the balanced accuracy, and the paper's accuracy if it
    has one for this system and dataset.
    """
    datasets = paper.in_order_of_columns(
        dict.fromkeys(d for row in table.values() for d in row["results"])
    )
    lines = [["system", *(f"{d}: accuracy, balanced, paper" for d in datasets)]]
    reasons = []
    for name, row in table.items():
        if row["missing"] is not None:
            reasons.append(f"{name}: {row['missing']}")
        lines.append([name, *(_cell(name, d, row["results"].get(d)) for d in datasets)])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    text = ["  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) for line in lines]
    text.insert(1, "-" * len(text[0]))
    return "\n".join([line.rstrip() for line in text] + reasons)


def _cell(system: str, dataset: str, result: Mapping[str, Any] | None) -> str:
    published = paper.published(system, dataset)
    if result is None:
        return f"–  –  {number(published)}"
    low, high = result["accuracy_ci95"]
    accuracy = f"{number(result['accuracy'])} [{number(low)}, {number(high)}]"
    return f"{accuracy}  {number(result['balanced_accuracy'])}  {number(published)}"
