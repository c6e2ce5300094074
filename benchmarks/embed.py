"""Measure `vclip embed`: photographs a second, memory, restart, and scikit-learn on its file.

    python benchmarks/embed.py [--model retina-small] [--count 10000] [--side 1024]

Three measurements, each with the command in processes of its own:

- The command embeds a folder of `--count` JPEGs, copies of `--different` drawn photographs. Memory
  is sampled: the resident set of the command, and of the command with the processes that decode.
  Both are also given for the first tenth of the photographs, because flat memory does not grow.
- The command embeds the first `--restart` photographs, once in one go and once killed (SIGKILL)
  after its first part: the two files are compared byte by byte.
- The command embeds both halves of a drawn dataset. scikit-learn's logistic regression on these
  files is compared with `vclip probe --method linear`: accuracy, balanced accuracy and AUC, and the
  largest difference of a probability.

The last line is one JSON object. The exit status is 1 if memory grows by more than `MOST_GROWTH`
after the first tenth, if the files differ, or if a figure differs by more than `MOST_DIFFERENCE`.
"""

import argparse
import filecmp
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, Final

import cv2
import numpy as np
import pyarrow.parquet
from sklearn.linear_model import LogisticRegression

import vclip_jax
from vclip_jax import datasets
from vclip_jax.datasets.synthetic.domains import TRAINING_DOMAIN, sample_case
from vclip_jax.datasets.synthetic.render import render
from vclip_jax.evaluation.metrics.classification import classification
from vclip_jax.evaluation.probe import INVERSE_PENALTY, few_shot
from vclip_jax.predict.embed import parts
from vclip_jax.predict.embeddings import embed_split

DATASET: Final = "synthetic/fives_like-128px-400-s1"
HALVES: Final = ("test[:50%]", "test[50%:]")
FIGURES: Final = ("accuracy", "balanced_accuracy", "auc")
MOST_GROWTH: Final = 64
"""MiB of the command after the first tenth."""
MOST_DIFFERENCE: Final = 1e-3
SECONDS: Final = 0.2
"""Between two samples of the memory."""


def main() -> int:
    """Measure and print, and return the exit status."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default="retina-small")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument("--side", type=int, default=1024, help="pixels of a photograph")
    parser.add_argument("--different", type=int, default=32, help="drawn photographs")
    parser.add_argument("--restart", type=int, default=1100, help="photographs of the killed run")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        photographs = drawn(options.different, options.side)
        folder = tiled(place / "photographs", photographs, options.count)
        report: dict[str, Any] = {
            "model": options.model,
            "photographs": options.count,
            "side": options.side,
            "mean_bytes": round(float(np.mean([len(data) for data in photographs]))),
            **memory_and_time(options.model, folder, place / "x.parquet", options.count),
        }
        some = tiled(place / "some", photographs, options.restart)
        report["restart_same_bytes"] = restarted(options.model, some, place)
        report |= against_probe(options.model, place)
    print(json.dumps(report))
    failed = []
    if report["growth_mib"] > MOST_GROWTH:
        failed.append(f"memory grows by {report['growth_mib']} MiB")
    if not report["restart_same_bytes"]:
        failed.append("a killed and restarted command writes another file")
    if max(report["difference"].values()) > MOST_DIFFERENCE:
        failed.append("scikit-learn on the file differs from vclip probe")
    for reason in failed:
        print(f"error: {reason}", file=sys.stderr)
    return 1 if failed else 0


def drawn(count: int, side: int) -> list[bytes]:
    """Draw photographs, as JPEGs of quality 92."""
    encoded = []
    for index in range(count):
        rgb = render(sample_case(TRAINING_DOMAIN, 7, index), min(side, 512))
        bgr = cv2.resize(rgb[..., ::-1], (side, side), interpolation=cv2.INTER_CUBIC)
        encoded.append(cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, 92])[1].tobytes())
    return encoded


def tiled(folder: Path, photographs: list[bytes], count: int) -> Path:
    """Write `count` files, the photographs in turn."""
    folder.mkdir()
    for index in range(count):
        (folder / f"{index:06}.jpg").write_bytes(photographs[index % len(photographs)])
    return folder


def command(*words: object) -> list[str]:
    return [sys.executable, "-m", "vclip_jax", *map(str, words)]


# --- Memory and time.


def memory_and_time(model: str, folder: Path, target: Path, count: int) -> dict[str, Any]:
    """Run the command, and sample its memory while parts are finished."""
    began = time.perf_counter()
    process = subprocess.Popen(command("embed", model, folder, "--out", target))
    samples: list[tuple[int, int, int]] = []
    first = 0.0
    unfinished = target.with_name(f"{target.name}.parts")
    while process.poll() is None:
        finished = len(list(unfinished.glob("*.parquet"))) if unfinished.is_dir() else 0
        first = first or (time.perf_counter() if finished else 0.0)
        own, tree = resident(process.pid)
        samples.append((finished, own, tree))
        time.sleep(SECONDS)
    seconds = time.perf_counter() - began
    if process.returncode:
        raise SystemExit(process.returncode)
    tenth = max(2, count // parts.ROWS // 10)
    early = [sample for sample in samples if sample[0] <= tenth]
    peak, early_peak = (max(own for _, own, _ in some) for some in (samples, early))
    steady = (count - parts.ROWS) / (time.perf_counter() - first) if count > parts.ROWS else None
    return {
        "seconds": round(seconds, 1),
        "photographs_per_second": round(count / seconds, 1),
        "photographs_per_second_after_first_part": round(steady, 1) if steady else None,
        "peak_mib": peak >> 20,
        "peak_mib_first_tenth": early_peak >> 20,
        "growth_mib": (peak - early_peak) >> 20,
        "peak_mib_with_decoders": max(tree for _, _, tree in samples) >> 20,
    }


def resident(pid: int) -> tuple[int, int]:
    """Return the bytes in memory of a process, and of it with its children and theirs."""
    own = _resident(pid)
    try:
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
        children += [
            child
            for task in Path(f"/proc/{pid}/task").iterdir()
            if task.name != str(pid)
            for child in (task / "children").read_text().split()
        ]
    except OSError:
        children = []
    return own, own + sum(resident(int(child))[1] for child in children)


def _resident(pid: int) -> int:
    try:
        pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    except (OSError, IndexError):
        return 0
    return pages * os.sysconf("SC_PAGE_SIZE")


# --- Killed and restarted.


def restarted(model: str, folder: Path, place: Path) -> bool:
    """Return whether a command that was killed writes the same bytes as one that was not."""
    whole, resumed = place / "whole.parquet", place / "resumed.parquet"
    subprocess.run(command("embed", model, folder, "--out", whole), check=True)
    process = subprocess.Popen(command("embed", model, folder, "--out", resumed))
    unfinished = resumed.with_name(f"{resumed.name}.parts")
    while process.poll() is None and not list(unfinished.glob("*.parquet")):
        time.sleep(0.01)
    process.kill()
    process.wait()
    if resumed.exists():
        raise SystemExit("error: the command ended before it was killed: raise --restart")
    subprocess.run(command("embed", model, folder, "--out", resumed), check=True)
    return filecmp.cmp(whole, resumed, shallow=False)


# --- scikit-learn on the file, and `vclip probe`.


def against_probe(model: str, place: Path) -> dict[str, Any]:
    """Compare a logistic regression on the file with the linear probe."""
    data = place / "data"
    datasets.prepare(DATASET, "", str(data))
    tables = []
    for number, half in enumerate(HALVES):
        target = place / f"half{number}.parquet"
        words = ("embed", model, DATASET, "--data-dir", data, "--split", half, "--out", target)
        subprocess.run(command(*words), check=True)
        tables.append(pyarrow.parquet.read_table(target))
    names = json.loads(tables[0].schema.metadata[b"vclip_jax"])["classes"]
    (x, y), (asked, truth) = (
        (
            np.stack(table["vector"].to_numpy()),
            np.array([names.index(label) for label in table["label"].to_pylist()]),
        )
        for table in tables
    )
    fitted = LogisticRegression(C=INVERSE_PENALTY, tol=1e-10, max_iter=10_000).fit(x, y)
    ours = fitted.predict_proba(asked)

    chosen = ("--method", "linear", "--shots", "all", "--folds", 1, "--out", place)
    splits = ("--train-split", HALVES[0], "--test-split", HALVES[1])
    of = ("--model", model, "--dataset", DATASET, "--data-dir", data)
    subprocess.run(command("probe", *of, *chosen, *splits), check=True)
    (row,) = json.loads((place / "probe.json").read_text())["results"]

    clip = vclip_jax.load(model)
    train, test = (embed_split(clip, DATASET, data, half) for half in HALVES)
    shots = few_shot.draw_shots(train.labels, None, 0, 0)
    classes = np.zeros((len(names), clip.embed_dim), np.float32)
    task = few_shot.FewShot(train.images[shots], train.labels[shots], test.images, classes, 1.0, 0)
    theirs = few_shot.linear(task)
    figures = classification(ours, truth)
    difference = {name: abs(figures[name] - row[name]["mean"]) for name in FIGURES}
    difference["probability"] = float(np.abs(ours - theirs).max())
    return {
        "scikit_learn": {name: round(float(figures[name]), 4) for name in FIGURES},
        "probe": {name: round(row[name]["mean"], 4) for name in FIGURES},
        "difference": {name: round(float(value), 6) for name, value in difference.items()},
    }


if __name__ == "__main__":
    sys.exit(main())
