"""The first lines of a report: how good the model is, and whether to believe it."""

from collections.abc import Mapping, Sequence
from typing import Any, TypeGuard

from vclip_jax.evaluation.metrics.table import chance, majority, number
from vclip_jax.files.errors import few
from vclip_jax.report.figures import bounds, class_names, is_number
from vclip_jax.report.reader import Run

FEW = 100
"""Images below which a figure says little, whatever its interval."""
FEW_OF_A_CLASS = 20
"""Images of a class, or with a finding, below which its figures say little."""


def headline(run: Run, rendered: set[str]) -> list[str]:
    """Return at most three sentences about the evaluation that says most.

    That is the one with the most photographs, before any of rendered images, and of classes before
    any of findings.

    Args:
      run: the run.
      rendered: the names of evaluations of rendered images.
    """
    scored = {name: one for name, one in run.zero_shot.items() if is_number(one.get("auc"))}
    rated = {name: one for name, one in run.findings.items() if _macro(one)}
    results = {**rated, **scored}
    if not results:
        return []
    real = {name: one for name, one in results.items() if name not in rendered}
    among = real or results
    name = max(among, key=lambda one: (one in scored, int(among[one]["n"])))
    result = among[name]
    say, doubt = (_of_classes, _doubts_on_classes) if name in scored else (_of_findings, _doubts)
    what = f"On the {result['n']:,} {'photographs' if real else 'rendered images'} of {name}"
    doubts = [*_own_photographs(name, result, run), *doubt(result)]
    return [
        f"{what}, {say(result)}",
        _belief(result, doubts, bool(real), len(results)),
        _answers(result),
    ]


def _own_photographs(name: str, result: Mapping[str, Any], run: Run) -> list[str]:
    """Return whether the model was trained on, or its checkpoint chosen by, these photographs."""
    doubts = []
    if isinstance(trained := result.get("trained_on"), str):
        doubts.append(f"the model was trained on {trained}, which is among these photographs")
    if str(run.config.get("keep_best", "")).startswith(f"eval/{name}/"):
        doubts.append("the best checkpoint was chosen by a figure of these photographs")
    return doubts


def _macro(result: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return the means over findings; empty if there is no AUC."""
    macro = result.get("macro")
    return macro if isinstance(macro, Mapping) and is_number(macro.get("auc")) else {}


def _of_classes(result: Mapping[str, Any]) -> str:
    share = majority(result)
    base = f"always giving the commonest class reaches {number(share)}"
    if chance(result) >= share:
        base = f"guessing reaches {number(chance(result))}"
    return (
        f"the AUC is {number(result['auc'])}{_span(result)}; accuracy is "
        f"{number(result['accuracy'])}, and {base}."
    )


def _of_findings(result: Mapping[str, Any]) -> str:
    macro = _macro(result)
    areas = [(row["auc"], row["name"]) for row in _rows(result, "findings")]
    words = f"the mean AUC of {len(areas)} findings is {number(macro['auc'])}{_span(macro)}"
    if len(areas) < 2:
        return f"{words}."
    (low, worst), (high, best) = min(areas), max(areas)
    return f"{words}, from {number(low)} ({few([worst])}) to {number(high)} ({few([best])})."


def _span(result: Mapping[str, Any]) -> str:
    interval = bounds(result.get("auc_ci95"))
    return f" (95% interval {number(interval[0])} to {number(interval[1])})" if interval else ""


def _rows(result: Mapping[str, Any], key: str) -> list[Mapping[str, Any]]:
    """Return the rows of the classes or findings that have an AUC."""
    rows = result.get(key)
    rows = rows if isinstance(rows, list) else []
    return [row for row in rows if _has_auc(row) and isinstance(row.get("name"), str)]


def _has_auc(row: Any) -> TypeGuard[Mapping[str, Any]]:
    return isinstance(row, Mapping) and is_number(row.get("auc"))


def _belief(result: Mapping[str, Any], doubts: Sequence[str], real: bool, evaluations: int) -> str:
    if not real:
        return (
            "No real photograph was scored: the images were rendered by this program, so the "
            "figures say nothing about patients."
        )
    unit = result.get("bootstrap")
    patients = isinstance(unit, Mapping) and unit.get("unit") == "patient"
    over = "patients" if patients else "images, as no patients are known"
    if doubts:
        return f"Believe it with care: {'; '.join(doubts)}. Intervals are over {over}."
    more = f" {evaluations} evaluations are below." if evaluations > 1 else ""
    return f"Intervals are over {over}; they hold for this model, not for another seed.{more}"


def _doubts(result: Mapping[str, Any]) -> list[str]:
    """Return what speaks against the figures of findings."""
    rows = _rows(result, "findings")
    doubts = _too_few(result, {row["name"]: row.get("present") for row in rows})
    doubts += _unskilled({row["name"]: row for row in rows})
    if not isinstance(result.get("chosen_on"), str):
        doubts.append(
            "answers are from a probability of 0.5 on, which no split has chosen, so sensitivity "
            "and specificity say little (config.evals.NAME.development)"
        )
    return doubts


def _doubts_on_classes(result: Mapping[str, Any]) -> list[str]:
    """Return what speaks against the figures of classes."""
    rows = result.get("per_class")
    named = zip(class_names(result), rows if isinstance(rows, list) else (), strict=False)
    classes = {name: row for name, row in named if _has_auc(row)}
    doubts = _too_few(result, {name: row.get("n") for name, row in classes.items()})
    interval = bounds(result.get("accuracy_ci95"))
    if interval and interval[0] <= majority(result):
        doubts.append("the interval of accuracy reaches that of the commonest class")
    if (interval := bounds(result.get("auc_ci95"))) and interval[0] <= 0.5:
        doubts.append("the interval reaches chance, 0.5")
    doubts += _unskilled(classes)
    calibration = result.get("calibration")
    if isinstance(calibration, Mapping) and calibration.get("same_images") is True:
        doubts.append("the calibration was fitted on these photographs")
    spread = _spread(result)
    if spread and spread[1] - spread[0] > 0.1:
        doubts.append(
            f"with other words for the classes, the AUC is from {number(spread[0])} to "
            f"{number(spread[1])}"
        )
    return doubts


def _too_few(result: Mapping[str, Any], images: Mapping[str, Any]) -> list[str]:
    if result["n"] < FEW:
        return [f"{result['n']:,} photographs are too few to judge a model"]
    rare = [name for name, n in images.items() if is_number(n) and n < FEW_OF_A_CLASS]
    return [f"fewer than {FEW_OF_A_CLASS} photographs are of {few(rare, 4)}"] if rare else []


def _unskilled(rows: Mapping[str, Mapping[str, Any]]) -> list[str]:
    """Name the classes or findings whose AUC may be that of guessing."""
    spans = {name: bounds(row.get("auc_ci95")) for name, row in rows.items()}
    none = [
        f"{name} ({number(rows[name]['auc'])})"
        for name, interval in spans.items()
        if interval and interval[0] <= 0.5
    ]
    return [f"the AUC may be that of guessing for {few(none, 4)}"] if none else []


def _spread(result: Mapping[str, Any]) -> tuple[float, float] | None:
    kinds = result.get("prompt_sensitivity")
    entry = kinds.get("single") if isinstance(kinds, Mapping) else None
    values = entry.get("auc") if isinstance(entry, Mapping) else None
    if not isinstance(values, Mapping):
        return None
    low, high = values.get("min"), values.get("max")
    return (float(low), float(high)) if is_number(low) and is_number(high) else None


def _answers(result: Mapping[str, Any]) -> str:
    error, gate = result.get("ece"), result.get("gate")
    words = []
    if is_number(error):
        words.append(f"its probabilities are off by {error:.0%} on average")
    if isinstance(gate, Mapping) and is_number(gate.get("refused")) and gate["refused"]:
        left = " and left out" if gate.get("excluded") is True else ""
        words.append(f"{gate['refused']:,} photographs were refused as unusable{left}")
    text = "; ".join(words)
    return f"{text[0].upper()}{text[1:]}." if text else ""
