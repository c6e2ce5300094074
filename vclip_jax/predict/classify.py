"""Classify photographs and write the results as a table, JSON lines or CSV, with heat maps."""

import json
import os
import sys
from argparse import Namespace
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from vclip_jax.console import commands, terminal
from vclip_jax.data.choices import GATES
from vclip_jax.datasets.own.named import expand
from vclip_jax.files.csv_lines import csv_line
from vclip_jax.files.errors import shown
from vclip_jax.files.writing import replacing
from vclip_jax.predict.photographs import Looked, embeddings_of, look, summary
from vclip_jax.predict.pretrained import Pretrained, load, say_step
from vclip_jax.prompts import PromptSet
from vclip_jax.prompts.calibration import Calibration


def run(options: Namespace, out: TextIO) -> int:
    """Classify all images, write the results to `out`, and return the number that failed."""
    given = options.prompt or options.prompts
    asked = Pretrained.prompt_set(given) if given else None
    named = expand(options.images, terminal.lines_of_stdin())
    for note in named.notes:
        print(f"note: {shown(note)}", file=sys.stderr)
    model = commands.chosen_model(options)
    clip = load(model, step=options.step)
    say_step(model, clip)
    prompt_set = clip.asked(asked)
    calibration = clip.calibration_of(prompt_set, options.calibration)
    side = _heat_side(clip) if options.explain else 0
    looked: Iterable[list[Looked]] = look(clip, named.paths, options.gate, side)
    if options.prevalence:
        first = list(look(clip, named.paths, options.gate))
        calibration = _match(clip, prompt_set, first, options.prevalence, calibration)
        # Read the images again for heat maps, instead of keeping all their pictures in memory.
        looked = looked if options.explain else first
    names = prompt_set.class_names
    if calibration is not None and calibration.prevalence and not options.prevalence:
        shares = ", ".join(f"{share:.0%} {name}" for name, share in calibration.prevalence.items())
        print(
            f"calibration: answers are for a place with {shown(shares)} (--prevalence for yours, "
            "--calibration off for none)",
            file=sys.stderr,
        )
    if options.format == "csv":
        extra = ["explanation"] if options.explain else []
        gate = [] if options.gate == "off" else ["gate"]
        header = csv_line(["image", "prediction", *names, "error", *gate, *extra])
        print(_for(out, header), file=out)
    failed, refused = 0, Counter[str]()
    for row in answers(clip, looked, prompt_set, calibration, options.gate, options.explain):
        if "error" in row:
            failed += 1
        else:
            refused[row.get("gate", "")] += 1
        print(_for(out, LINES[options.format](row, names)), file=out, flush=True)
    if said := summary(refused):
        print(f"gate: {said}", file=sys.stderr)
    return failed


def _match(
    clip: Pretrained,
    prompt_set: PromptSet,
    looked: Iterable[list[Looked]],
    stated: Mapping[str, float],
    calibration: Calibration | None,
) -> Calibration:
    """Set offsets that make the mean answer the stated prevalence, and print notes about them."""
    from vclip_jax.predict import prior_matching  # imports SciPy

    looked = list(looked)
    used = [one for chunk in looked for one in chunk if one.embedding is not None]
    if refused := sum(bool(one.gate) for one in used):
        print(
            f"note: {refused} of the {len(used)} photographs that set the offsets are refused by "
            "the gate; --gate exclude leaves them out",
            file=sys.stderr,
        )
    matched, shifts = prior_matching.calibrate(
        clip.probabilities(embeddings_of(clip, looked), prompt_set, calibration="off"),
        stated,
        prompt_set,
        model=clip.weights_digest,
        data="these photographs",
        temperature=calibration.temperature if calibration is not None else 1.0,
    )
    for note in prior_matching.notes(matched, shifts):
        print(f"note: {shown(note)}", file=sys.stderr)
    return matched


def answers(
    clip: Pretrained,
    looked: Iterable[list[Looked]],
    prompt_set: PromptSet,
    calibration: Calibration | None = None,
    gate: str = GATES[0],
    explain: str | os.PathLike[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Classify images, and yield a dictionary for each.

    A dictionary has `image` and either `error`, or `prediction` and `probabilities` (class name ->
    number), and `groups` if the prompt set has them. Unless `gate` is "off", it has `gate`: the
    reasons to refuse the image, or "". With "exclude", a refused image has no prediction.

    If `explain` names a folder, heat maps are written into it, and each dictionary also has
    `explanation`, the path of the heat map ("" for an image without a prediction). `look` must then
    have got a side.
    """
    write_heat = _heat_writer(clip, prompt_set, Path(explain)) if explain else None
    for chunk in looked:
        good = [one for one in chunk if one.embedding is not None]
        rows: Iterator[dict[str, Any]] = iter(())
        if good:
            embeddings = np.stack([np.asarray(one.embedding) for one in good])
            values = clip.probabilities(embeddings, prompt_set, calibration=calibration or "off")
            rows = iter([_answer(row, prompt_set) for row in values])
            written = iter(write_heat(good, values.argmax(axis=1)) if write_heat else ())
        for one in chunk:
            row: dict[str, Any] = {"image": str(one.path)}
            answered = one.embedding is not None
            row |= {"error": one.error} if one.error else next(rows) if answered else {}
            if gate != "off":
                row["gate"] = "; ".join(one.gate)
            if write_heat is not None:
                row["explanation"] = next(written) if answered else ""
            yield row


def _heat_side(clip: Pretrained) -> int:
    from vclip_jax.predict.heat_maps import HEAT_SIDE

    return max(HEAT_SIDE, int(clip.config["data"]["image_size"]))


HeatWriter = Callable[[list[Looked], np.ndarray], list[str]]


def _heat_writer(clip: Pretrained, prompt_set: PromptSet, folder: Path) -> HeatWriter:
    """Return a function that writes PNGs, named after the images, and returns their paths."""
    from PIL import Image

    from vclip_jax.predict.heat_maps import Explainer, overlay

    explainer = Explainer(clip, prompt_set)
    folder.mkdir(parents=True, exist_ok=True)
    taken: set[str] = set()

    def write(images: list[Looked], classes: np.ndarray) -> list[str]:
        written = []
        squares = np.stack([image.square for image in images if image.square is not None])
        for image, heat in zip(images, explainer(squares, classes), strict=True):
            target = folder / _free_name(image.path.stem, taken)
            with replacing(target) as part:
                Image.fromarray(overlay(np.asarray(image.picture), heat)).save(part, "PNG")
            written.append(str(target))
        return written

    return write


def _free_name(stem: str, taken: set[str]) -> str:
    """Return `stem-heat.png`, with a number if the name is in `taken`, and add it to `taken`."""
    name, number = f"{stem}-heat.png", 1
    while name.lower() in taken:
        number += 1
        name = f"{stem}-{number}-heat.png"
    taken.add(name.lower())
    return name


def _answer(values: np.ndarray, prompt_set: PromptSet) -> dict[str, Any]:
    names = prompt_set.class_names
    answer = {"prediction": names[int(values.argmax())], "probabilities": _rounded(names, values)}
    if prompt_set.groups:
        answer["groups"] = _rounded(prompt_set.label_names, prompt_set.group(values[None])[0])
    return answer


def _rounded(names: Sequence[str], values: np.ndarray) -> dict[str, float]:
    return {name: round(float(value), 4) for name, value in zip(names, values, strict=True)}


def _for(out: TextIO, line: str) -> str:
    """Return a line as it is for a file, and safe to print for a terminal."""
    return shown(line) if out.isatty() else line


def _jsonl_row(row: dict[str, Any], _: Sequence[str]) -> str:
    return json.dumps(row, ensure_ascii=False)


def _csv_row(row: dict[str, Any], names: Sequence[str]) -> str:
    values = [row.get("probabilities", {}).get(name, "") for name in names]
    extra = [row["explanation"]] if "explanation" in row else []
    gate = [row["gate"]] if "gate" in row else []
    # The name stays a path, unlike with the mark of `csv_line`.
    image = f"./{row['image']}" if row["image"].startswith(("=", "+", "-", "@")) else row["image"]
    error = row.get("error", "")
    return csv_line([image, row.get("prediction", ""), *values, error, *gate, *extra])


def _table_row(row: dict[str, Any], _: Sequence[str]) -> str:
    if "error" in row:
        return f"error: {shown(row['error'])}"
    ranked = sorted(row.get("probabilities", {}).items(), key=lambda item: -item[1])
    cells = [f"{shown(name)} {value:.3f}" for name, value in ranked]
    refused = [f"refused ({row['gate']})"] if row.get("gate") else []
    return f"{shown(row['image'])}:  " + "  ".join(refused + cells)


LINES = {"table": _table_row, "jsonl": _jsonl_row, "csv": _csv_row}
