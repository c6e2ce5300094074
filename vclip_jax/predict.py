"""Classify photographs with a prompt set.

    python -m vclip_jax.predict --checkpoint W photo.jpg folder/ more.csv
    find . -name '*.jpg' | python -m vclip_jax.predict --checkpoint W --prompts zh/messidor -

An input is an image, a folder (searched for images, subfolders included), a .csv file with a column
`image` (paths count from the file's folder), or - for paths on standard input. Not for diagnosis.
"""

import argparse
import csv
import io
import json
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
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
    return parser


def run(options: argparse.Namespace, out: TextIO) -> int:
    """Classify everything and write it to `out`; returns the number of images that failed."""
    # Imported here: --help should not wait for JAX.
    from vclip_jax.pretrained import Pretrained, load

    prompt_set = Pretrained.prompt_set(options.prompt or options.prompts)
    paths = list(expand(options.images, sys.stdin))
    clip = load(options.checkpoint)
    names = prompt_set.class_names
    if options.format == "csv":
        print(_csv_line(["image", "prediction", *names, "error"]), file=out)
    failed = 0
    for row in predictions(clip, paths, prompt_set):
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
    clip: "Pretrained", paths: Iterable[Path], prompt_set: PromptSet
) -> Iterator[dict[str, Any]]:
    """One dictionary an image: `image` and either `error`, or `prediction` and `probabilities`
    (class name -> number), and `groups` where the prompt set has them."""

    def preprocess(path: Path) -> np.ndarray | ImageError:
        try:
            return clip.preprocess(path)
        except ImageError as error:
            return error

    paths = iter(paths)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        while chunk := list(islice(paths, clip.batch_size)):
            read = list(pool.map(preprocess, chunk))
            squares = [square for square in read if isinstance(square, np.ndarray)]
            values = iter(
                clip.probabilities(clip.embed(np.stack(squares)), prompt_set) if squares else ()
            )
            for path, square in zip(chunk, read, strict=True):
                if isinstance(square, ImageError):
                    yield {"image": str(path), "error": str(square)}
                else:
                    yield {"image": str(path)} | _answer(next(values), prompt_set)


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
    return _csv_line([row["image"], row.get("prediction", ""), *values, row.get("error", "")])


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
