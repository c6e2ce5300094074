"""The tables of a run as data, for the page and for export.

The input is what `reader` has read. A part that is missing or damaged gives no table.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from vclip_jax.evaluation.metrics.classification import PER_CLASS
from vclip_jax.evaluation.metrics.subgroups import FIGURES as GROUP_FIGURES
from vclip_jax.evaluation.metrics.table import chance, majority, number
from vclip_jax.files.errors import few
from vclip_jax.report.curves import single_step
from vclip_jax.report.figures import METRICS, bounds, class_names, is_number
from vclip_jax.report.reader import Run

_RULES = {
    "youden": "Youden",
    "sensitivity": "sensitivity at least",
    "specificity": "specificity at least",
}


@dataclass(frozen=True)
class Cell:
    """A number, with its 95 % interval if it has one, or a text."""

    value: float | int | str | None
    interval: tuple[float, float] | None = None

    @property
    def text(self) -> str:
        """The value in words: three decimals, whole numbers with commas, a dash for None."""
        if isinstance(self.value, str):
            return self.value
        if isinstance(self.value, int):
            return f"{self.value:,}"
        return number(self.value)

    @property
    def span(self) -> str:
        """The interval in words, "" without one."""
        if self.interval is None:
            return ""
        return f"{number(self.interval[0])} – {number(self.interval[1])}"


@dataclass(frozen=True)
class Table:
    """A table with its caption."""

    name: str
    """A name for files, such as `zero-shot`."""
    title: str
    caption: str
    """Sentences that say what is counted, how many, and how intervals were made."""
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    small: frozenset[int] = field(default=frozenset())
    """The rows that rest on too few images to say much."""


def tables_of(run: Run, comparisons: Iterable[Mapping[str, Any]] = ()) -> list[Table]:
    """Return all tables of a run: those of evaluations, in their order, and those between them."""
    found = [_overview(run)] if run.zero_shot else []
    if (table := evaluations_of_one_step(run)) is not None:
        found.append(table)
    for name, result in run.zero_shot.items():
        makers = (_classes, _confusion, operating_points, *_groups(result))
        found += [table for make in makers if (table := make(name, result)) is not None]
    for name, result in run.findings.items():
        found += [table for table in (findings(name, result),) if table is not None]
    found += [_tests(row) for row in comparisons]
    if run.retrieval:
        found.append(_retrieval(run))
    return found


def evaluations_of_one_step(run: Run) -> Table | None:
    """Return the figures of `metrics.jsonl` if all are of one step, which makes no curve."""
    found = single_step(run.metrics, run.zero_shot)
    if found is None:
        return None
    step, values = found
    titles = list(dict.fromkeys(title for row in values.values() for title in row))
    return Table(
        "evaluations",
        f"Evaluations at step {step:,}",
        "All evaluations in the log are of this step, so there are no curves.",
        ("Evaluation", *titles),
        tuple(
            (Cell(name), *(Cell(row.get(title)) for title in titles))
            for name, row in values.items()
        ),
    )


def _cell(row: Mapping[str, Any], key: str) -> Cell:
    value = row.get(key)
    interval = bounds(row.get(f"{key}_ci95"))
    return Cell(value if is_number(value) else None, interval)


def unit_of(result: Mapping[str, Any]) -> str:
    """Describe the images and the unit of the intervals: "n = 800 images of 400 patients"."""
    drawn = result.get("bootstrap")
    words = f"n = {result['n']:,} images"
    if not isinstance(drawn, Mapping):
        return f"{words}; no bootstrap intervals"
    if drawn.get("unit") == "patient" and is_number(drawn.get("units")):
        words += f" of {drawn['units']:,} patients"
    resamples, unit = drawn.get("resamples"), drawn.get("unit", "image")
    many = f"{resamples:,} resamples" if is_number(resamples) else "resamples"
    return f"{words}; 95 % intervals from {many} of the {unit}s"


def _overview(run: Run) -> Table:
    rows = []
    for name, result in run.zero_shot.items():
        first = (Cell(name), Cell(result["n"]), Cell(len(result["confusion"])))
        more = (Cell(chance(result)), Cell(majority(result)))
        rows.append((*first, *(_cell(result, key) for key in METRICS), *more))
    units = "; ".join(f"{name}: {unit_of(result)}" for name, result in run.zero_shot.items())
    return Table(
        "zero-shot",
        "Zero-shot classification",
        "Figures of all evaluations. The interval of accuracy is Wilson's, for as many independent "
        f"images as are as precise; the others are bootstrap percentiles. {units}.",
        ("Dataset", "Images", "Classes", *METRICS.values(), "Chance", "Majority"),
        tuple(rows),
    )


def _classes(name: str, result: Mapping[str, Any]) -> Table | None:
    rows = result.get("per_class")
    names = class_names(result)
    if not isinstance(rows, list) or len(rows) != len(names):
        return None
    if not all(isinstance(row, Mapping) and {"n", "predicted"} <= row.keys() for row in rows):
        return None
    return Table(
        f"{name}-classes",
        f"{name}: figures by class",
        f"Each class against all others on {name}. {unit_of(result)}.",
        ("Class", "Images", "Predicted", "Sensitivity", "Specificity", "F1", "AUC"),
        tuple(
            (
                Cell(label),
                Cell(row["n"]),
                Cell(row["predicted"]),
                *(_cell(row, key) for key in PER_CLASS),
            )
            for label, row in zip(names, rows, strict=True)
        ),
    )


def _confusion(name: str, result: Mapping[str, Any]) -> Table:
    names = class_names(result)
    return Table(
        f"{name}-confusion",
        f"{name}: confusion matrix",
        f"Images of {name} by true class (rows) and answer (columns). n = {result['n']:,} images.",
        ("True class", *names),
        tuple(
            (Cell(label), *map(Cell, counts))
            for label, counts in zip(names, result["confusion"], strict=True)
        ),
    )


def operating_points(name: str, result: Mapping[str, Any]) -> Table | None:
    """Return the operating points of an evaluation, None if it has none."""
    entry = result.get("operating_points")
    classes = entry.get("classes") if isinstance(entry, Mapping) else None
    if not isinstance(classes, Mapping) or not classes:
        return None
    rows = []
    for label, one in classes.items():
        points = one.get("points") if isinstance(one, Mapping) else None
        for point in points if isinstance(points, list) else ():
            if not isinstance(point, Mapping) or point.get("rule") not in _RULES:
                continue
            least = point.get("least")
            rule = _RULES[point["rule"]] + (f" {least:g}" if is_number(least) and least else "")
            keys = ("threshold", "sensitivity", "specificity", "ppv", "npv")
            more = ("likelihood_ratio_positive", "likelihood_ratio_negative")
            cells = (_cell(point, key) for key in (*keys, *more))
            rows.append((Cell(label), Cell(rule), *cells, _cell(one, "prevalence")))
    if not rows:
        return None
    chosen = entry.get("chosen_on") if isinstance(entry, Mapping) else None
    if isinstance(chosen, Mapping):
        split, count = chosen.get("split"), chosen.get("n")
        where = f"chosen on the split {split} ({count} images)"
    else:
        where = "chosen on these images themselves, so that the figures are too good"
    return Table(
        f"{name}-thresholds",
        f"{name}: operating points",
        f"A class against the rest; thresholds were {where}. Intervals are Wilson's; predictive "
        f"values are for the prevalence in the last column. n = {result['n']:,} images.",
        (
            *("Class", "Rule", "Threshold", "Sensitivity", "Specificity", "PPV", "NPV"),
            *("LR+", "LR−", "Prevalence"),
        ),
        tuple(rows),
    )


def _groups(result: Mapping[str, Any]) -> list[Any]:
    """Return a maker of a table for each fact with subgroups."""
    facts = result.get("subgroups")
    if not isinstance(facts, Mapping):
        return []
    return [
        lambda name, result, fact=fact: subgroup_table(name, result, fact)
        for fact, entry in facts.items()
        if isinstance(entry, Mapping) and isinstance(entry.get("groups"), list)
    ]


def subgroup_table(name: str, result: Mapping[str, Any], fact: str) -> Table | None:
    """Return the subgroups of an evaluation by one fact."""
    entry = result["subgroups"][fact]
    rows: list[tuple[Cell, ...]] = []
    small = set()
    for row in entry["groups"]:
        if not isinstance(row, Mapping) or not is_number(row.get("n")):
            continue
        if row.get("small") is True:
            small.add(len(rows))
        people = row.get("patients")
        rows.append(
            (
                Cell(str(row.get("group"))),
                Cell(int(row["n"])),
                Cell(int(people) if is_number(people) else None),
                *(
                    cell
                    for key in GROUP_FIGURES
                    for cell in (_cell(row, key), _cell_of_gap(row, key))
                ),
            )
        )
    if not rows:
        return None
    p, adjusted = (entry.get(key) for key in ("p", "p_holm"))
    test = "Too few groups of at least 20 images for a test."
    if is_number(p) and is_number(adjusted):
        test = (
            f"Do the groups have one AUC? Permutation test: p = {number(p, 4)}, adjusted for all "
            f"columns by Holm: {number(adjusted, 4)}."
        )
    heads = [head for key in GROUP_FIGURES for head in (METRICS[key], "Gap")]
    return Table(
        f"{name}-by-{fact}",
        f"{name} by {fact}",
        f"Figures of each group, and the gap: its figure minus that of all other images. {test} "
        f"{_of_other_classes(entry['groups'])}"
        f"Groups of fewer than 20 images are grey. {unit_of(result)}.",
        ("Group", "Images", "Patients", *heads),
        tuple(rows),
        frozenset(small),
    )


def _of_other_classes(rows: Sequence[Any]) -> str:
    """Return a sentence on groups that lack a class which others have."""
    rows = [row for row in rows if isinstance(row, Mapping)]
    counts = {str(row.get("group")): row.get("images_per_class") for row in rows}
    known = {name: one for name, one in counts.items() if isinstance(one, list)}
    total = [any(one) for one in zip(*known.values(), strict=False)]
    lacking = [
        name
        for name, one in known.items()
        if any(whole and not own for own, whole in zip(one, total, strict=False))
    ]
    if not lacking:
        return ""
    return f"{few(lacking, 4)} lack a class, so means over classes have no gap there. "


def _cell_of_gap(row: Mapping[str, Any], key: str) -> Cell:
    value = row.get(f"{key}_gap")
    return Cell(value if is_number(value) else None, bounds(row.get(f"{key}_gap_ci95")))


def findings(name: str, result: Mapping[str, Any]) -> Table | None:
    """Return the findings of an evaluation, with the means in the last rows."""
    keys = ("auc", "average_precision", "sensitivity", "specificity")
    rows = [
        (
            Cell(str(row.get("name"))),
            *(Cell(row[w] if is_number(row.get(w)) else None) for w in ("present", "absent")),
            *(_cell(row, key) for key in keys),
            _cell(row, "threshold"),
        )
        for row in result["findings"]
        if isinstance(row, Mapping)
    ]
    for part, label in (("macro", "Mean of the findings"), ("micro", "All answers as one list")):
        if isinstance(result.get(part), Mapping):
            empty = Cell("")
            rows.append(
                (Cell(label), empty, empty, *(_cell(result[part], key) for key in keys), empty)
            )
    chosen = result.get("chosen_on")
    where = f"Youden's on the split {chosen}" if isinstance(chosen, str) else "0.5"
    subset = _cell(result, "subset_accuracy")
    whole = f" All answers are right in {subset.text} of the fully rated images."
    return Table(
        f"{name}-findings",
        f"{name}: findings",
        f"Each finding by itself, present or absent. The threshold of an answer is {where}.{whole} "
        f"{unit_of(result)}.",
        (
            *("Finding", "Present", "Absent", "AUC", "Average precision"),
            *("Sensitivity", "Specificity", "Threshold"),
        ),
        tuple(rows),
    )


def _tests(row: Mapping[str, Any]) -> Table:
    tests: Sequence[tuple[str, Mapping[str, Any]]] = [
        (label, row["tests"][key]) for key, label in METRICS.items()
    ]
    unit = row.get("unit", "image")
    return Table(
        f"{row['first']}-against-{row['second']}",
        f"{row['first']} against {row['second']}",
        f"Paired bootstrap on n = {row['n']:,} images in common; the {unit}s are drawn, for both "
        "together. p is two-sided and not adjusted for the number of tests.",
        ("Figure", "First", "Second", "Difference", "p"),
        tuple(
            (
                Cell(label),
                Cell(test["first"]),
                Cell(test["second"]),
                Cell(test["difference"], bounds(test["difference_ci95"])),
                Cell(None if test["p"] is None else number(test["p"], 4)),
            )
            for label, test in tests
        ),
    )


def _retrieval(run: Run) -> Table:
    ways = (("image_to_text", "caption for an image"), ("text_to_image", "image for a caption"))
    rows = [
        (
            Cell(split),
            Cell(label),
            Cell(found["n"]),
            *(
                Cell(found[key][at] if is_number(found[key].get(at)) else None)
                for at in ("r1", "r5", "r10")
            ),
        )
        for split, found in run.retrieval.items()
        for key, label in ways
    ]
    return Table(
        "retrieval",
        "Retrieval",
        "Recall among the first 1, 5 and 10 results; any image with the caption counts as right.",
        ("Split", "Direction", "Images", "R@1", "R@5", "R@10"),
        tuple(rows),
    )
