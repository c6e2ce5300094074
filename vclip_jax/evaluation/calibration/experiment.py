"""Draw, fit, measure before and after, print, and write the file: `vclip calibrate`."""

import logging
from argparse import Namespace
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

import numpy as np

from vclip_jax import prompts
from vclip_jax.console import commands
from vclip_jax.data.choices import GATES
from vclip_jax.data.images import gate as gate_lib
from vclip_jax.datasets.built import find_dataset, names_dataset, open_builder
from vclip_jax.datasets.own.named import expand
from vclip_jax.datasets.records import open_source
from vclip_jax.evaluation.calibration.fit import Floats, Ints, cross_validated, draw, fit
from vclip_jax.evaluation.labelled import prompts_for, renumbered
from vclip_jax.evaluation.metrics import bootstrap
from vclip_jax.evaluation.metrics.predictions import rows_of
from vclip_jax.files.errors import few
from vclip_jax.predict import prior_matching
from vclip_jax.predict.embeddings import embed_split
from vclip_jax.predict.photographs import embeddings_of, look, summary
from vclip_jax.predict.pretrained import Pretrained, load, say_step
from vclip_jax.prompts.calibration import LABELS, Calibration, calibrated, digest_of, save

log = logging.getLogger("vclip_jax")

FIGURES: Final = ("nll", "brier", "ece", "accuracy", "balanced_accuracy", "auc")
LEAST_HELD_BACK: Final = 50
"""The number of held-out photographs below which cross-validation is used."""


@dataclass(frozen=True)
class Asked:
    """Photographs, and the model's answers without calibration."""

    data: str
    """The name of the photographs."""
    prompts: prompts.PromptSet
    probabilities: Floats
    """float32 `[n, classes]`, not calibrated."""
    labels: Ints
    """int `[n]`, -1 for no label."""
    patients: Ints | None = None
    """A number for the patient of each photograph, int `[n]`; None if no patients are known."""


def run(options: Namespace) -> Calibration:
    """Make a calibration, print its figures, and write it to `--out`.

    Raises:
        ValueError, OSError: one line.
    """
    model = commands.chosen_model(options)
    clip = load(model, step=options.step)
    say_step(model, clip)
    asked = _ask(options, clip)
    if options.prevalence:
        found = _by_prevalence(options, clip, asked)
    else:
        found = _by_labels(options, clip, asked)
    print(_describe(found))
    if options.out is not None:
        save(options.out, found)
        print(f"{options.out}: the calibration of {found.prompts}")
    return found


# --- The photographs.


def _ask(options: Namespace, clip: Pretrained) -> Asked:
    """Read a built dataset, or the named photographs, and classify them."""
    first = options.inputs[0]
    if options.split is not None and len(options.inputs) > 1:
        raise ValueError("--split is for one built dataset: name one dataset, or no --split")
    if options.split is not None or names_dataset(options.inputs, options.data_dir):
        return _ask_dataset(options, clip, first)
    if not options.prevalence:
        raise ValueError(
            f"{first} holds photographs without labels: state the share of each class "
            "(--prevalence), or build a dataset (vclip datasets build)"
        )
    named = expand(options.inputs)
    for note in named.notes:
        log.warning("%s", note)
    prompt_set = clip.asked(prompts.load(options.prompts) if options.prompts else None)
    looked = list(look(clip, named.paths, options.gate))
    every = [one for chunk in looked for one in chunk]
    for one in every:
        if one.error:
            log.warning("left out: %s", one.error)
    _say(Counter("; ".join(one.gate) for one in every if not one.error), options.gate)
    values = clip.probabilities(embeddings_of(clip, looked), prompt_set, calibration="off")
    return Asked("a folder", prompt_set, values, np.full(len(values), -1))


def _ask_dataset(options: Namespace, clip: Pretrained, name: str) -> Asked:
    split = options.split or _usual_split(name, options.data_dir)
    names = open_source(name, options.data_dir, split).class_names
    if options.prevalence and options.prompts:
        prompt_set = clip.asked(prompts.load(options.prompts))
    else:
        prompt_set = prompts_for(clip, names, name, options.prompts)
    found = embed_split(clip, name, options.data_dir, split, options.cache)
    if set(names) <= set(prompt_set.class_names):
        found = renumbered(found, prompt_set)
    else:  # the prompts are for other classes than the labels
        found = replace(found, labels=np.full(len(found.labels), -1, np.int32))
    _say(Counter("; ".join(gate_lib.of_bits(bits)) for bits in found.gate.tolist()), options.gate)
    kept = found.gate == 0 if options.gate == "exclude" else np.ones(len(found.gate), bool)
    values = clip.probabilities(found.images[kept], prompt_set, calibration="off")
    people = rows_of(open_source(name, options.data_dir, split), name).people
    patients = None if people is None else people[kept]
    return Asked(f"{name}:{split}", prompt_set, values, found.labels[kept], patients)


def _usual_split(name: str, data_dir: str) -> str:
    splits = sorted(open_builder(name, data_dir).info.splits)
    chosen = "test" if "test" in splits else "+".join(splits)
    log.warning("%s: using the split %s (--split)", find_dataset(name, data_dir), chosen)
    return chosen


def _say(refused: Mapping[str, int], gate: str) -> None:
    said = summary(refused)
    if said and gate != GATES[-1]:
        left = "left out" if gate == "exclude" else "still used (--gate exclude leaves them out)"
        log.warning("gate: %s; %s", said, left)


# --- With labels.


def _by_labels(options: Namespace, clip: Pretrained, asked: Asked) -> Calibration:
    known = np.flatnonzero(asked.labels >= 0)
    if len(known) < 2:
        raise ValueError(
            f"{asked.data} has {len(known)} photographs with a label of these classes, too few for "
            "a calibration: state the share of each class instead (--prevalence)"
        )
    values, labels = asked.probabilities[known], asked.labels[known]
    people = None if asked.patients is None else asked.patients[known]
    drawn = draw(len(known), options.shots, options.seed, people)
    temperature, offsets = fit(values[drawn], labels[drawn])
    others = np.setdiff1d(np.arange(len(known)), drawn)
    how: dict[str, Any]
    if len(others) >= LEAST_HELD_BACK:
        how = {"how": "held out", "n": len(others)}
        before, truth = values[others], labels[others]
        after = calibrated(before, temperature, offsets)
        units = None if people is None else people[others]
    else:
        how = {"how": f"{options.folds}-fold cross-validation", "n": len(drawn)}
        before, truth = values[drawn], labels[drawn]
        units = None if people is None else people[drawn]
        after = cross_validated(before, truth, options.folds, options.seed, units)
    figures = measure(before, after, truth, units)
    said = f"on {how['n']} others" if len(others) >= LEAST_HELD_BACK else f"by {how['how']}"
    if units is not None:
        said += f", intervals over {len(np.unique(units))} patients"
    fewer = (
        f" (there are no {options.shots})" if options.shots and options.shots > len(drawn) else ""
    )
    print(f"fitted on {len(drawn)} labelled photographs of {asked.data}{fewer}; measured {said}")
    print(f"do not score it on {asked.data}: figures of photographs it was fitted on are too good")
    print(format_figures(figures))
    for warning in warnings_on(labels[drawn], figures, asked.prompts.class_names):
        log.warning("warning: %s", warning)
    stated = None
    if options.at:
        shares = prior_matching.by_class(options.at, asked.prompts.class_names)
        offsets = offsets + prior_shift(labels[drawn], shares, asked.prompts.class_names)
        stated = dict(zip(asked.prompts.class_names, shares.round(6).tolist(), strict=True))
        print("the offsets are moved to the stated shares; the figures are without this move")
    return Calibration(
        model=clip.weights_digest,
        prompts=asked.prompts.name,
        prompts_digest=digest_of(asked.prompts),
        classes=asked.prompts.class_names,
        temperature=temperature,
        offsets=tuple(map(float, offsets)),
        method=LABELS,
        data=asked.data,
        n=len(drawn),
        seed=options.seed,
        prevalence=stated,
        figures={**how, **figures},
    )


def prior_shift(labels: Ints, shares: Floats, names: Sequence[str]) -> Floats:
    """Return the offsets `[c]`, of sum 0, that move calibrated answers to other shares of classes.

    The posterior of a class is proportional to its prior, so the move adds log(share there / share
    here) to its logit (C. Elkan, The foundations of cost-sensitive learning, IJCAI 2001, theorem 2,
    for two classes).

    Args:
        labels: int `[n]`, of the photographs of the fit.
        shares: `[c]`, above 0, of sum 1: where the model will be used.
        names: the names of the classes.

    Raises:
        ValueError: one line: a class has no photograph.
    """
    counts = np.bincount(labels, minlength=len(shares))
    if not counts.all():
        lacking = names[int(counts.argmin())]
        raise ValueError(
            f"--at needs a labelled photograph of each class, and {lacking} has none: label more, "
            "or leave out --at"
        )
    moved = np.log(shares) - np.log(counts / counts.sum())
    return np.asarray(moved - moved.mean())


def warnings_on(labels: Ints, figures: Mapping[str, Any], class_names: Sequence[str]) -> list[str]:
    """Return what speaks against a fit: classes without photographs, worse probabilities."""
    counts = np.bincount(labels, minlength=len(class_names))
    found = []
    if absent := [name for name, n in zip(class_names, counts, strict=True) if not n]:
        found.append(
            f"no labelled photograph is of {few(absent, 4)}: the fit takes the class for rare"
        )
    nll = figures["nll"]
    if nll["after"] is not None and nll["after"] > nll["before"]:
        found.append(
            "the calibration makes the probabilities worse (negative log-likelihood "
            f"{nll['before']:.3f} before, {nll['after']:.3f} after): give more photographs, or "
            "leave it out"
        )
    return found


def measure(
    before: Floats, after: Floats, labels: Ints, patients: Ints | None = None
) -> dict[str, Any]:
    """Measure the same photographs before and after calibration.

    Args:
        before, after: probabilities `[n, c]`.
        labels: int `[n]`.
        patients: a number for the patient of each photograph, for intervals over patients.

    Returns:
        Each of `FIGURES` -> `before`, `after` and their intervals, `difference` (after minus
        before), its interval and p.
    """
    tests = bootstrap.paired_test(after, before, labels, patients=patients)
    own = [
        bootstrap.classification(values, labels, patients=patients) for values in (before, after)
    ]
    found = {}
    for key in FIGURES:
        row = {"before": own[0][key], "after": own[1][key]}
        for when, figures in zip(("before", "after"), own, strict=True):
            row[f"{when}_ci95"] = figures[f"{key}_ci95"]
        row |= {name: tests[key][name] for name in ("difference", "difference_ci95", "p")}
        found[key] = row
    return found


def format_figures(figures: Mapping[str, Any]) -> str:
    """Format the result of `measure` as a table, with a line if balanced accuracy falls."""
    lines: list[tuple[str, ...]] = [
        ("figure", "before [95% CI]", "after [95% CI]", "difference [95% CI]")
    ]
    for key in FIGURES:
        row = figures[key]
        cells = [_cell(row[when], row[f"{when}_ci95"], "") for when in ("before", "after")]
        lines.append((key, *cells, _cell(row["difference"], row["difference_ci95"], "+")))
    widths = [max(len(line[column]) for line in lines) for column in range(4)]
    text = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    fallen = figures["balanced_accuracy"]
    if fallen["difference"] is not None and fallen["difference"] < 0:
        text.append(
            f"balanced accuracy falls by {-fallen['difference']:.3f}: the offsets favour frequent "
            "classes, so that rare ones are predicted less often"
        )
    return "\n".join(text)


def _cell(value: float | None, interval: list[float] | None, sign: str) -> str:
    if value is None:
        return "–"
    bounds = f" [{interval[0]:{sign}.3f}, {interval[1]:{sign}.3f}]" if interval else ""
    return f"{value:{sign}.3f}{bounds}"


# --- Without labels.


def _by_prevalence(options: Namespace, clip: Pretrained, asked: Asked) -> Calibration:
    own = clip.calibration_of(asked.prompts)
    found, shifts = prior_matching.calibrate(
        asked.probabilities,
        options.prevalence,
        asked.prompts,
        model=clip.weights_digest,
        data=asked.data,
        temperature=own.temperature if own is not None else 1.0,
    )
    after = found.apply(asked.probabilities)
    changed = np.mean(after.argmax(axis=1) != asked.probabilities.argmax(axis=1))
    print(f"set on {found.n} photographs of {asked.data} without labels")
    print(f"{changed:.0%} of the answers change")
    print(_format_prevalence(asked, found, after, shifts))
    for note in prior_matching.notes(found, shifts):
        print(f"note: {note}")
    figures: dict[str, Any] = {
        "answers_changed": float(changed),
        "dependence": {s.name: {"halved": s.halved, "doubled": s.doubled} for s in shifts},
    }
    known = asked.labels >= 0
    if known.any():  # which were not used
        figures |= {"how": "unused labels", "n": int(known.sum())}
        figures |= measure(asked.probabilities[known], after[known], asked.labels[known])
        print(format_figures(figures))
    return replace(found, figures=figures)


def _format_prevalence(
    asked: Asked, found: Calibration, after: Floats, shifts: tuple[prior_matching.Dependence, ...]
) -> str:
    """Format a row for each class.

    A row has the stated share, the mean answer before, the share of answers before and after, and
    the share of answers that change with half and with twice the stated odds.
    """
    lines: list[tuple[str, ...]] = [
        ("class", "stated", "mean before", "named before", "named after", "odds/2", "odds*2")
    ]
    classes = len(found.classes)
    named = [
        np.bincount(p.argmax(axis=1), minlength=classes) / len(p)
        for p in (asked.probabilities, after)
    ]
    mean = asked.probabilities.mean(axis=0)
    for c, name in enumerate(found.classes):
        stated = (found.prevalence or {})[name]
        shares = (stated, mean[c], named[0][c], named[1][c], shifts[c].halved, shifts[c].doubled)
        lines.append((name, *(f"{share:.3f}" for share in shares)))
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join(
            cell.ljust(width) if column == 0 else cell.rjust(width)
            for column, (cell, width) in enumerate(zip(line, widths, strict=True))
        )
        for line in lines
    )


def _describe(found: Calibration) -> str:
    offsets = ", ".join(
        f"{name} {value:+.3f}" for name, value in zip(found.classes, found.offsets, strict=True)
    )
    return f"{found.prompts}: temperature {found.temperature:.3f}; offsets: {offsets}"
