"""Compare the speed of this checkout with that of another one.

    git worktree add /tmp/before COMMIT
    python benchmarks/against.py /tmp/before [--what step,scorer,input,build] [--rounds 5]

Every measurement runs our side of a benchmark of both checkouts in turns, each checkout in a
process of its own, with one environment for both:

    step    `cpu_step.py --side ours`: steps of RN50 + RoBERTa-base, batch 16, float32
    scorer  `scorer.py`: a batch of 32 images through RN50 and the scorer, float32
    input   `input_pipeline.py`: training batches of 224 px from JPEGs of 512 px, one thread
    build   `python -m vclip_jax.datasets build generic` of 4,000 JPEGs of 512 px

The printed ratio is the median over the rounds of the other checkout's time over ours: above 1,
this checkout is faster. The last line is one JSON object.
"""

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import input_pipeline
from build_dataset import write_source

HERE = Path(__file__).resolve().parents[1]
WORK = ("step", "scorer", "input", "build")
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]


class Side:
    """A checkout that works on request: a process that runs this file."""

    def __init__(self, checkout: Path, what: str, folder: Path):
        paths = os.pathsep.join([str(checkout), str(checkout / "benchmarks")])
        self._process = subprocess.Popen(
            [sys.executable, __file__, str(folder), "--serve", what],
            env={**os.environ, "PYTHONPATH": paths, "JAX_PLATFORMS": "cpu", "PYTHONSAFEPATH": "1"},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def seconds(self) -> float:
        """Return the seconds of one unit of work."""
        assert self._process.stdin
        assert self._process.stdout
        self._process.stdin.write("\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("seconds "):
                return float(line.split()[1])
        raise SystemExit("a side has failed: see its message above")

    def close(self) -> None:
        """End the process."""
        self._process.communicate()


def serve(what: str, folder: Path) -> None:
    """Do one unit of work for each input line, and print its seconds."""
    work = {"step": step, "scorer": scorer, "input": batches, "build": build}[what](folder)
    for _ in sys.stdin:
        print("seconds", work(), flush=True)


def timed(work: Any) -> Any:
    """Return a function that runs `work` and returns its seconds."""

    def run() -> float:
        start = time.perf_counter()
        work()
        return time.perf_counter() - start

    return run


def step(folder: Path) -> Any:
    """Return one training step."""
    import cpu_step

    return timed(cpu_step.our_side(argparse.Namespace(batch=16, threads=2), "float32"))


def scorer(folder: Path) -> Any:
    """Return one scored batch."""
    import scorer as benchmark

    return timed(
        benchmark.our_side(argparse.Namespace(batch=32, threads=2, calls=1, batches=1), "float32")
    )


def batches(folder: Path) -> Any:
    """Return CPU seconds of 20 training batches of 64 images."""
    import input_pipeline as benchmark

    stream = benchmark.our_batches(folder / "pairs512", str(folder / "vocab.txt"), 0, "fast")

    def run() -> float:
        for _ in range(4):  # batches that were buffered since the last round
            next(stream)
        start = time.process_time()
        for _ in range(20):
            next(stream)
        return time.process_time() - start

    return run


def build(folder: Path) -> Any:
    """Return one build of a dataset."""
    out = folder / f"built-{os.getpid()}"
    command = [sys.executable, "-m", "vclip_jax.datasets", "build", "generic", "--name", "x"]
    command += ["--source", str(folder / "photographs"), "--data_dir", str(out)]

    def run() -> None:
        shutil.rmtree(out, ignore_errors=True)
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)

    return timed(run)


def prepare(folder: Path, what: list[str]) -> None:
    """Write the files that the sides read."""
    if "input" in what:
        pairs = folder / "pairs512"
        (pairs / "files" / "all").mkdir(parents=True)
        captions = {}
        for index, (data, text) in enumerate(input_pipeline.photographs(512, 64, "")):
            captions[name := f"{index:05}"] = text
            (pairs / "files" / "all" / f"{name}.jpg").write_bytes(data)
        input_pipeline.write_tfds(pairs, list(captions), captions)
        words = [*WORDS, *sorted(set("".join(captions.values())))]
        (folder / "vocab.txt").write_text("\n".join(words) + "\n", encoding="utf-8")
    if "build" in what:
        options = argparse.Namespace(count=4000, size=512, format="jpg")
        write_source(folder / "photographs", options)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("checkout", type=Path, help="folder of the other checkout")
    parser.add_argument("--what", default=",".join(WORK))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--serve", choices=WORK, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.serve:
        serve(options.serve, options.checkout)
        return
    what = options.what.split(",")
    ratios = {}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        prepare(folder, what)
        for one in what:
            ours, theirs = Side(HERE, one, folder), Side(options.checkout, one, folder)
            for side in (ours, theirs):
                side.seconds()  # compiles, and reads the files into memory
            rounds = [(ours.seconds(), theirs.seconds()) for _ in range(options.rounds)]
            ours.close()
            theirs.close()
            each = sorted(theirs / ours for ours, theirs in rounds)
            ratios[one] = round(statistics.median(each), 3)
            seconds = [round(statistics.median(times), 3) for times in zip(*rounds, strict=True)]
            print(
                f"{one}: {ratios[one]} ({each[0]:.3f} to {each[-1]:.3f}); seconds of this checkout "
                f"and the other: {seconds[0]}, {seconds[1]}",
                flush=True,
            )
    print(json.dumps(ratios))


if __name__ == "__main__":
    main()
