"""Classify photographs and write the results as a table, JSON lines or CSV, with heat maps."""

import json
import os
import sys
from argparse import Namespace
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import Any, NamedTuple, TextIO

import numpy as np

from vclip_jax.console import commands, terminal
from vclip_jax.data.images.decode import ImageError
from vclip_jax.data.images.preprocess import preprocess_file
from vclip_jax.datasets.own.named import expand
from vclip_jax.devices import cores
from vclip_jax.files.csv_lines import csv_line
from vclip_jax.files.foreign import shown
from vclip_jax.files.writing import replacing
from vclip_jax.predict.heat_maps import HEAT_SIDE
from vclip_jax.predict.pretrained import Pretrained, load, say_step
from vclip_jax.prompts import PromptSet

MOST_WORKERS = 16
"""The largest number of processes that decode images."""


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
    names = prompt_set.class_names
    if options.format == "csv":
        extra = ["explanation"] if options.explain else []
        print(csv_line(["image", "prediction", *names, "error", *extra]), file=out)
    failed = 0
    for row in predictions(clip, named.paths, prompt_set, options.explain):
        failed += "error" in row
        print(LINES[options.format](row, names), file=out, flush=True)
    return failed


def predictions(
    clip: Pretrained,
    paths: Iterable[Path],
    prompt_set: PromptSet,
    explain: str | os.PathLike[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """Classify images, and yield a dictionary for each.

    A dictionary has `image` and either `error`, or `prediction` and `probabilities` (class name ->
    number), and `groups` if the prompt set has them. If `explain` names a folder, heat maps are
    written into it, and each dictionary also has `explanation`, the path of the heat map ("" with
    an error).
    """
    write_heat = _heat_writer(clip, prompt_set, Path(explain)) if explain else None

    settings = clip.config["data"]
    side = max(HEAT_SIDE, settings["image_size"]) if explain else 0

    paths = iter(paths)
    # Each thread waits for a separate process, which a damaged file may crash.
    with ThreadPoolExecutor(min(MOST_WORKERS, cores.usable())) as pool:
        while chunk := list(islice(paths, clip.batch_size)):
            read = list(pool.map(lambda path: preprocess_file(str(path), settings, side), chunk))
            good = [
                Looked(path, *result)
                for path, result in zip(chunk, read, strict=True)
                if not isinstance(result, ImageError)
            ]
            rows = iter(_answers(clip, good, prompt_set, write_heat) if good else ())
            for path, result in zip(chunk, read, strict=True):
                if isinstance(result, ImageError):
                    row = {"image": str(path), "error": str(result)}
                    yield row | ({"explanation": ""} if write_heat else {})
                else:
                    yield {"image": str(path)} | next(rows)


class Looked(NamedTuple):
    """A file, the model's view of it, and the picture to draw a heat map on, if any."""

    path: Path
    square: np.ndarray
    picture: Any


HeatWriter = Callable[[list[Looked], np.ndarray, np.ndarray], list[str]]


def _answers(
    clip: Pretrained,
    images: list[Looked],
    prompt_set: PromptSet,
    write_heat: HeatWriter | None,
) -> list[dict[str, Any]]:
    squares = np.stack([image.square for image in images])
    values = clip.probabilities(clip.embed(squares), prompt_set)
    rows = [_answer(row, prompt_set) for row in values]
    if write_heat is not None:
        written = write_heat(images, squares, values.argmax(axis=1))
        for row, path in zip(rows, written, strict=True):
            row["explanation"] = path
    return rows


def _heat_writer(clip: Pretrained, prompt_set: PromptSet, folder: Path) -> HeatWriter:
    """Return a function that writes PNGs, named after the images, and returns their paths."""
    from PIL import Image

    from vclip_jax.predict.heat_maps import Explainer, overlay

    explainer = Explainer(clip, prompt_set)
    folder.mkdir(parents=True, exist_ok=True)
    taken: set[str] = set()

    def write(images: list[Looked], squares: np.ndarray, classes: np.ndarray) -> list[str]:
        written = []
        for image, heat in zip(images, explainer(squares, classes), strict=True):
            target = folder / _free_name(image.path.stem, taken)
            with replacing(target) as part:
                Image.fromarray(overlay(image.picture, heat)).save(part, "PNG")
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


def _jsonl_row(row: dict[str, Any], _: Sequence[str]) -> str:
    return json.dumps(row, ensure_ascii=False)


def _csv_row(row: dict[str, Any], names: Sequence[str]) -> str:
    values = [row.get("probabilities", {}).get(name, "") for name in names]
    extra = [row["explanation"]] if "explanation" in row else []
    # The name stays a path, unlike with the mark of `csv_line`.
    image = f"./{row['image']}" if row["image"].startswith(("=", "+", "-", "@")) else row["image"]
    return csv_line([image, row.get("prediction", ""), *values, row.get("error", ""), *extra])


def _table_row(row: dict[str, Any], _: Sequence[str]) -> str:
    if "error" in row:
        return f"error: {shown(row['error'])}"
    ranked = sorted(row["probabilities"].items(), key=lambda item: -item[1])
    return f"{shown(row['image'])}:  " + "  ".join(
        f"{shown(name)} {value:.3f}" for name, value in ranked
    )


LINES = {"table": _table_row, "jsonl": _jsonl_row, "csv": _csv_row}
