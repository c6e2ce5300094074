"""Measure the speed of a dataset build, and check that a killed build gives the same files.

    python benchmarks/build_dataset.py [--count 20000] [--format jpg] [--kills 3]

The benchmark writes COUNT photographs of 512 px (DIFFERENT rendered eyes under COUNT names) into
one folder for each class. It builds them with `python -m vclip_jax.datasets build generic`
undisturbed, then again with SIGKILL to the builder at random moments, and compares all files. The
last line is one JSON object.
"""

import argparse
import hashlib
import io
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from PIL import Image

from vclip_jax.datasets.synthetic.domains import sample_case
from vclip_jax.datasets.synthetic.render import render
from vclip_jax.devices import cores

DIFFERENT = 200


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=20_000)
    parser.add_argument("--format", choices=("jpg", "png"), default="jpg")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--kills", type=int, default=3)
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        print(json.dumps(measure(options, Path(folder))))


def measure(options: argparse.Namespace, folder: Path) -> dict[str, object]:
    source = folder / "source"
    write_source(source, options)
    available = cores.usable()

    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    start = time.perf_counter()
    build(source, folder / "undisturbed").wait()
    seconds = time.perf_counter() - start
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    busy = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    reference = digests(folder / "undisturbed")
    print(f"undisturbed: {seconds:.1f} s, {busy:.1f} CPU seconds, {len(reference)} files")

    rng = random.Random(options.seed)
    kills = 0
    while kills < options.kills:
        process = build(source, folder / "killed")
        time.sleep(rng.uniform(0.2, 0.9) * seconds / (options.kills + 1) + 3)
        if process.poll() is not None:
            break  # the build has already ended
        process.kill()
        process.wait()
        kills += 1
        notes = len(list((folder / "killed").rglob("notes/*.json")))
        print(f"killed {kills} times, {notes} shards are done")
    build(source, folder / "killed").wait()
    return {
        "count": options.count,
        "format": options.format,
        "images_per_second_per_core": round(options.count / seconds / available, 1),
        "images_per_cpu_second": round(options.count / busy, 1),
        "largest_process_mib": after.ru_maxrss // 1024,
        "kills": kills,
        "identical": digests(folder / "killed") == reference,
    }


def write_source(source: Path, options: argparse.Namespace) -> None:
    photographs = []
    for index in range(DIFFERENT):
        buffer = io.BytesIO()
        image = Image.fromarray(render(sample_case("synfundus_like", 11, index), options.size))
        if options.format == "jpg":
            image.save(buffer, "JPEG", quality=90)
        else:
            image.save(buffer, "PNG")
        photographs.append(buffer.getvalue())
    for name in ("normal", "glaucoma"):
        (source / name).mkdir(parents=True)
    for index in range(options.count):
        label = ("normal", "glaucoma")[index % 2]
        path = source / label / f"{index:06}.{options.format}"
        path.write_bytes(photographs[index % DIFFERENT])


def build(source: Path, data_dir: Path) -> subprocess.Popen:
    return subprocess.Popen(
        [
            sys.executable,
            "-m",
            "vclip_jax.datasets",
            "build",
            "generic",
            "--source",
            str(source),
            "--data-dir",
            str(data_dir),
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )


def digests(data_dir: Path) -> dict[str, str]:
    return {
        path.relative_to(data_dir).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(data_dir.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }


if __name__ == "__main__":
    main()
