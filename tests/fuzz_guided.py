"""Random bytes, led by what code they reach, into what reads files of strangers.

    pip install atheris
    python tests/fuzz_guided.py decode|tables|torch_zip|json --seconds 60 [CORPUS_FOLDER]

Anything but the error that is promised ends it with the input that caused it, which lies in the
working folder. What it finds becomes an example in a test. Not part of the test suite.
"""

import argparse
import io
import random
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from pathlib import Path

import atheris
import fuzz_formats

with atheris.instrument_imports(include=["vclip_jax"]):
    from vclip_jax import prompts
    from vclip_jax.data.images import decode
    from vclip_jax.data.text import tokenizer_json
    from vclip_jax.datasets.formats import tables
    from vclip_jax.datasets.ingest import store
    from vclip_jax.files import foreign
    from vclip_jax.interop import weights
    from vclip_jax.interop.pytorch import checkpoints

FOLDER = Path(tempfile.mkdtemp(prefix="vclip-fuzz-"))


def outcome(function, *arguments, **options):
    """What it returns, or None if it refuses in one line."""
    try:
        return function(*arguments, **options)
    except (ValueError, OSError) as error:
        if "\n" in str(error):
            raise AssertionError(f"more than one line: {error}") from error
        return None


def decoded(data: bytes) -> None:
    square = outcome(decode.decode, data, 16, "pad", "fast", key="k")
    assert square is None or square.shape == (16, 16, 3)
    outcome(store.store, data, store.Storage(64, convert=True))


def read_tables(data: bytes) -> None:
    suffix = (".csv", ".jsonl", ".parquet")[data[0] % 3] if data else ".csv"
    path = FOLDER / f"t{suffix}"
    path.write_bytes(data[1:])
    for row in outcome(tables.read_table, path) or []:
        assert all(isinstance(value, str) for value in row.values())


def read_torch(data: bytes) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", data)
        archive.writestr("archive/data/0", bytes(24))
    path = FOLDER / "a.pt"
    path.write_bytes(buffer.getvalue())
    outcome(checkpoints.read, path)


def read_json(data: bytes) -> None:
    path = FOLDER / "p.json"
    path.write_bytes(data)
    content = outcome(foreign.read_json, path)
    outcome(prompts.load, str(path))
    outcome(tokenizer_json.FastTokenizer.from_file, path)
    outcome(weights.complete_config, content, origin="p.json")


def starts(target: str) -> Iterator[bytes]:
    """Valid files to begin with."""
    names = {
        "decode": ("jpg", "png", "tif", "bmp", "webp", "ppm"),
        "tables": ("csv", "jsonl", "parquet"),
        "torch_zip": ("pt",),
        "json": ("tokenizer.json", "prompts.json", "config.json"),
    }[target]
    known = {one.name: one for one in fuzz_formats.formats()}
    for seed in range(4):
        for first, name in enumerate(names):
            data = known[name].make(random.Random(seed))
            if target == "torch_zip":
                with zipfile.ZipFile(io.BytesIO(data)) as archive:
                    data = archive.read("archive/data.pkl")
            yield bytes([first]) + data if target == "tables" else data


TARGETS = {"decode": decoded, "tables": read_tables, "torch_zip": read_torch, "json": read_json}

if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("target", choices=TARGETS)
    parser.add_argument("--seconds", type=int, default=60)
    parser.add_argument("corpus", nargs="*", help="folders with inputs; new ones go to the first")
    chosen = parser.parse_intermixed_args()
    seeds = FOLDER / "seeds"
    seeds.mkdir()
    for number, data in enumerate(starts(chosen.target)):
        (seeds / str(number)).write_bytes(data)
    limits = [f"-max_total_time={chosen.seconds}", "-timeout=60", "-rss_limit_mb=6000"]
    folders = [*(chosen.corpus or [tempfile.mkdtemp(prefix="vclip-corpus-")]), str(seeds)]
    atheris.Setup([sys.argv[0], *limits, *folders], TARGETS[chosen.target])
    atheris.Fuzz()
