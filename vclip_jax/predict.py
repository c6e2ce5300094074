"""Classify photographs with a prompt set.

    python -m vclip_jax.predict --checkpoint W photo.jpg folder/ more.csv
    find . -name '*.jpg' | python -m vclip_jax.predict --checkpoint W --prompts zh/messidor -
    python -m vclip_jax.predict --checkpoint W --explain heat/ photo.jpg

An input is an image, a folder (searched for images, subfolders included), a .csv file with a column
`image` (paths count from the file's folder), or - for paths on standard input. With --explain a
picture is written for each image, in which the places that speak for the predicted class rather
than the others are coloured. Not for diagnosis.
"""

import argparse
import csv
import io
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

import numpy as np

from vclip_jax.data.decode import ImageError
from vclip_jax.prompts import PromptSet

if TYPE_CHECKING:
    from vclip_jax.pretrained import Pretrained

SUFFIXES = (".jpg", ".jpeg", ".png", ".tif", ".tiff", ".bmp", ".webp", ".ppm")
HEAT_SIDE = 512
"""Of the pictures with heat maps, in pixels, unless the model's own are larger."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command; returns the exit status: 1 if an image or anything else failed."""
    options = _parser().parse_args(arguments)
    try:
        failed = run(options, sys.stdout)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    if failed:
        print(f"{failed} of the images could not be read", file=sys.stderr)
    return 1 if failed else 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m vclip_jax.predict",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("images", nargs="+", metavar="IMAGE", help="see above")
    parser.add_argument(
        "--checkpoint", required=True, help="a run's workdir, a portable folder, or hub:OWNER/NAME"
    )
    parser.add_argument(
        "--step", default="latest",
        help="of a run: latest (default), best (by its config.keep_best) or a number",
    )  # fmt: skip
    choice = parser.add_mutually_exclusive_group()
    choice.add_argument(
        "--prompts", default="zh/fives", help="a prompt set or a JSON file (default: zh/fives)"
    )
    choice.add_argument(
        "--prompt", action="append", metavar="TEXT", help="a class of its own; give several"
    )
    parser.add_argument(
        "--format",
        choices=("table", "jsonl", "csv"),
        default="table",
        help="of the output (default: table)",
    )
    parser.add_argument(
        "--explain", metavar="DIR", help="write a heat map over each image into this folder"
    )
    return parser


def run(options: argparse.Namespace, out: TextIO) -> int:
    """Classify everything and write it to `out`; returns the number of images that failed."""
    # Imported here: --help should not wait for JAX.
    from vclip_jax.pretrained import Pretrained, load, say_step

    prompt_set = Pretrained.prompt_set(options.prompt or options.prompts)
    paths = list(expand(options.images, sys.stdin))
    clip = load(options.checkpoint, step=options.step)
    say_step(options.checkpoint, clip)
    names = prompt_set.class_names
    if options.format == "csv":
        extra = ["explanation"] if options.explain else []
        print(_csv_line(["image", "prediction", *names, "error", *extra]), file=out)
    failed = 0
    for row in predictions(clip, paths, prompt_set, options.explain):
        failed += "error" in row
        print(LINES[options.format](row, names), file=out, flush=True)
    return failed


def expand(inputs: Iterable[str], stdin: Iterable[str]) -> Iterator[Path]:
    """The images that the command line names, in its order; folders by sorted path.

    Raises:
        ValueError: an input is not there, or has no image in it.
    """
    for name in inputs:
        path = Path(name)
        if name == "-":
            yield from (Path(line.rstrip("\r\n")) for line in stdin if line.strip())
        elif path.is_dir():
            found = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
            if not found:
                raise ValueError(f"{name}: there is no image ({', '.join(SUFFIXES)}) in the folder")
            yield from found
        elif not path.exists():
            raise ValueError(f"{name}: there is no such file or folder")
        elif path.suffix.lower() == ".csv":
            yield from _listed(path)
        else:
            yield path


def _listed(table: Path) -> Iterator[Path]:
    with open(table, encoding="utf-8-sig", newline="") as file:
        rows = csv.DictReader(file)
        if "image" not in (rows.fieldnames or ()):
            raise ValueError(f"{table}: there is no column 'image', only {rows.fieldnames}")
        yield from (table.parent / row["image"] for row in rows if row["image"])


def predictions(
    clip: "Pretrained",
    paths: Iterable[Path],
    prompt_set: PromptSet,
    explain: str | os.PathLike[str] | None = None,
) -> Iterator[dict[str, Any]]:
    """One dictionary an image: `image` and either `error`, or `prediction` and `probabilities`
    (class name -> number), and `groups` where the prompt set has them. Where `explain` names a
    folder, heat maps are written into it, and every dictionary has `explanation`, the path of its
    picture ("" with an error)."""
    write_heat = _heat_writer(clip, prompt_set, Path(explain)) if explain else None

    def preprocess(path: Path) -> np.ndarray | ImageError:
        try:
            return clip.preprocess(path)
        except ImageError as error:
            return error

    paths = iter(paths)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while chunk := list(islice(paths, clip.batch_size)):
            read = list(pool.map(preprocess, chunk))
            good = [
                (path, square)
                for path, square in zip(chunk, read, strict=True)
                if isinstance(square, np.ndarray)
            ]
            rows = iter(_answers(clip, good, prompt_set, write_heat) if good else ())
            for path, square in zip(chunk, read, strict=True):
                if isinstance(square, ImageError):
                    row = {"image": str(path), "error": str(square)}
                    yield row | ({"explanation": ""} if write_heat else {})
                else:
                    yield {"image": str(path)} | next(rows)


HeatWriter = Callable[[list[Path], np.ndarray, np.ndarray], list[str]]


def _answers(
    clip: "Pretrained",
    images: list[tuple[Path, np.ndarray]],
    prompt_set: PromptSet,
    write_heat: HeatWriter | None,
) -> list[dict[str, Any]]:
    squares = np.stack([square for _, square in images])
    values = clip.probabilities(clip.embed(squares), prompt_set)
    rows = [_answer(row, prompt_set) for row in values]
    if write_heat is not None:
        written = write_heat([path for path, _ in images], squares, values.argmax(axis=1))
        for row, path in zip(rows, written, strict=True):
            row["explanation"] = path
    return rows


def _heat_writer(clip: "Pretrained", prompt_set: PromptSet, folder: Path) -> HeatWriter:
    """A function that writes PNGs, named after the images, and returns their paths."""
    from PIL import Image

    from vclip_jax.data.decode import decode
    from vclip_jax.explain import Explainer, overlay

    explainer = Explainer(clip, prompt_set)
    folder.mkdir(parents=True, exist_ok=True)
    side = max(HEAT_SIDE, clip.config["data"]["image_size"])
    taken: set[str] = set()

    def write(paths: list[Path], squares: np.ndarray, classes: np.ndarray) -> list[str]:
        written = []
        for path, heat in zip(paths, explainer(squares, classes), strict=True):
            # What the model sees of the photograph, but larger and without enhancement.
            picture = decode(path.read_bytes(), side, clip.config["data"]["fit"])
            target = folder / _free_name(path.stem, taken)
            Image.fromarray(overlay(picture, heat)).save(target)
            written.append(str(target))
        return written

    return write


def _free_name(stem: str, taken: set[str]) -> str:
    """`stem-heat.png`, numbered where another image of that name has it; `taken` grows."""
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
    return _csv_line(
        [row["image"], row.get("prediction", ""), *values, row.get("error", ""), *extra]
    )


def _csv_line(cells: Sequence[Any]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="").writerow(cells)
    return line.getvalue()


def _table_row(row: dict[str, Any], _: Sequence[str]) -> str:
    if "error" in row:
        return f"error: {row['error']}"
    ranked = sorted(row["probabilities"].items(), key=lambda item: -item[1])
    return f"{row['image']}:  " + "  ".join(f"{name} {value:.3f}" for name, value in ranked)


LINES = {"table": _table_row, "jsonl": _jsonl_row, "csv": _csv_row}


if __name__ == "__main__":
    sys.exit(main())
