"""Damaged files of every format that strangers hand in: each is read, or refused in one line.

    python tests/fuzz.py --files 100000 --seed 0 [--formats csv,pt] [--jobs 2] [--out FOLDER]

File number i of a seed is the same on any machine and for any number of jobs. The last line is JSON
with the counts by format: read, refused (a ValueError or OSError of one line) and escaped (anything
else, more than --seconds, or more than --memory GiB). What escapes is kept in --out; the exit
status is then 1. `fuzz_guided.py` is led by coverage instead. Not part of the test suite.
"""

import argparse
import contextlib
import json
import logging
import os
import queue
import random
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
import traceback
import warnings
from collections import Counter
from pathlib import Path

from fuzz_formats import Format, flip, formats, one_line

OUTCOMES = ("read", "refused", "escaped")


def wheel(chosen: list[Format]) -> list[Format]:
    """The formats in turn, each as often as its share, in a mixed order that is always the same."""
    turns = [one for one in chosen for _ in range(one.share)]
    random.Random(0).shuffle(turns)
    return turns


def select(names: str) -> list[Format]:
    known = {one.name: one for one in formats()}
    unknown = [name for name in names.split(",") if name and name not in known]
    if unknown:
        sys.exit(f"error: no format is called {unknown[0]!r}: {', '.join(known)}")
    return [known[name] for name in names.split(",") if name] or list(known.values())


def content(one: Format, seed: int, index: int) -> bytes:
    """File number `index`."""
    rng = random.Random(f"{seed}/{index}")
    data = one.make(rng)
    return data if rng.randrange(20) == 0 else (one.damage if rng.randrange(8) else flip)(data, rng)


def try_file(one: Format, data: bytes, folder: Path) -> tuple[str, str]:
    """The outcome, and the error in words."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    path = folder / f"f.{one.name}"
    path.write_bytes(data)
    try:
        one.read(path)
    except (KeyboardInterrupt, SystemExit):
        raise
    except (ValueError, OSError) as error:
        with contextlib.suppress(AssertionError):
            one_line(error)
            return "refused", str(error)
        return "escaped", f"more than one line: {error}"
    except BaseException:
        return "escaped", traceback.format_exc()
    return "read", ""


def work(options: argparse.Namespace) -> None:
    """In a process of its own: says which file comes, and what became of it."""
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries print where they like
    warnings.simplefilter("ignore")
    logging.disable()
    turns = wheel(select(options.formats))
    for one in {one.name: one for one in turns}.values():  # imports, and folders that are copied
        with tempfile.TemporaryDirectory() as folder:
            try_file(one, one.make(random.Random(0)), Path(folder) / "warm")
    limit = _address_space() + int(options.memory * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with tempfile.TemporaryDirectory() as place:
        for index in range(options.first, options.files, options.jobs):
            one = turns[index % len(turns)]
            data = content(one, options.seed, index)
            print(json.dumps([index, one.name, "begun", ""]), file=answers)
            outcome, words = try_file(one, data, Path(place) / "now")
            print(json.dumps([index, one.name, outcome, words]), file=answers)


def _address_space() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    return pages * resource.getpagesize()


class Job:
    """One job's files, in processes that are replaced when a file takes them along."""

    def __init__(self, options: argparse.Namespace, number: int):
        self.options, self.next = options, number
        self.found: list[tuple[int, str, str, str]] = []

    def run(self) -> None:
        while self.next < self.options.files:
            self._process()

    def _process(self) -> None:
        names = ("files", "seed", "formats", "jobs", "memory")
        arguments = [f"--{name}={getattr(self.options, name)}" for name in names]
        with tempfile.TemporaryFile() as errors:
            child = subprocess.Popen(
                [sys.executable, __file__, *arguments, f"--first={self.next}"],
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
            )
            lines: queue.Queue[str] = queue.Queue()
            threading.Thread(target=_pass_on, args=(child.stdout, lines), daemon=True).start()
            begun = None
            while True:
                try:
                    # The first line waits for imports.
                    line = lines.get(timeout=self.options.seconds if begun else 600)
                except queue.Empty:
                    self._lost(begun, f"it took more than {self.options.seconds} seconds")
                    break
                if not line:
                    code = child.wait()
                    if code or begun:
                        errors.seek(0)
                        tail = errors.read().decode("utf-8", "replace")[-2000:]
                        self._lost(begun, f"the process ended with {code}: {tail}")
                    break
                index, name, outcome, words = json.loads(line)
                if outcome == "begun":
                    begun = index, name
                else:
                    self.found.append((index, name, outcome, words))
                    begun, self.next = None, index + self.options.jobs
            child.kill()
            child.wait()

    def _lost(self, begun: tuple[int, str] | None, words: str) -> None:
        if begun is None:
            sys.stderr.write(f"error: no file was begun: {words}\n")
            os._exit(2)
        self.found.append((*begun, "escaped", words))
        self.next = begun[0] + self.options.jobs


def _pass_on(stream, lines: "queue.Queue[str]") -> None:
    for line in stream:
        lines.put(line)
    lines.put("")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--formats", default="", help="names with commas between (default: all)")
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seconds", type=float, default=120, help="for one file")
    parser.add_argument("--memory", type=float, default=4, help="GiB more than at the start")
    parser.add_argument("--out", type=Path, default=Path("fuzz-escaped"))
    parser.add_argument("--first", type=int, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.first is not None:
        work(options)
        return 0
    start = time.monotonic()
    jobs = [Job(options, number) for number in range(options.jobs)]
    threads = [threading.Thread(target=job.run) for job in jobs]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    turns = wheel(select(options.formats))
    counts: dict[str, Counter[str]] = {one.name: Counter() for one in turns}
    for index, name, outcome, words in sorted(found for job in jobs for found in job.found):
        counts[name][outcome] += 1
        if outcome == "escaped":
            options.out.mkdir(parents=True, exist_ok=True)
            one = turns[index % len(turns)]
            kept = options.out / f"{options.seed}-{index}.{name}"
            kept.write_bytes(content(one, options.seed, index))
            kept.with_name(f"{kept.name}.txt").write_text(words, "utf-8", "replace")
            last = words.strip().splitlines()[-1] if words.strip() else ""
            print(f"escaped: {kept}: {last[:200]!r}", file=sys.stderr)
    total = sum(counts.values(), Counter())
    result = {
        "files": total.total(),
        "seed": options.seed,
        "seconds": round(time.monotonic() - start, 1),
        **{outcome: total[outcome] for outcome in OUTCOMES},
        "formats": {
            name: {outcome: count[outcome] for outcome in OUTCOMES}
            for name, count in sorted(counts.items())
        },
    }
    print(json.dumps(result))
    return 1 if total["escaped"] else 0


if __name__ == "__main__":
    sys.exit(main())
