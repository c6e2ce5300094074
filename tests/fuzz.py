"""Random bytes, guided by what code they reach, into what reads files of strangers.

    pip install atheris
    python tests/fuzz.py images|pickles|tables [-max_total_time=60] [CORPUS_FOLDER]

Anything but the error that is promised ends it with the input that caused it. What it finds becomes
an example in `tests/test_hostile_input.py`. Not part of the test suite.
"""

import sys
import tempfile
from pathlib import Path

import atheris

with atheris.instrument_imports(include=["vclip_jax"]):
    from vclip_jax.data import decode
    from vclip_jax.datasets import tables
    from vclip_jax.interop import plain_pickle

FOLDER = Path(tempfile.mkdtemp(prefix="vclip-fuzz-"))


def outcome(function, promised, *arguments, **options):
    """What it returns, or None if it refuses as promised, in one line."""
    try:
        return function(*arguments, **options)
    except promised as error:
        if "\n" in str(error):
            raise AssertionError(f"more than one line: {error}") from error
        return None


def images(data: bytes) -> None:
    square = outcome(decode.decode, decode.ImageError, data, 16, "pad", "fast", key="k")
    assert square is None or square.shape == (16, 16, 3)


def pickles(data: bytes) -> None:
    known = {"collections.OrderedDict": dict}
    outcome(plain_pickle.loads, plain_pickle.Refused, data, known, lambda key: key)


def read_tables(data: bytes) -> None:
    path = FOLDER / f"t{('.csv', '.jsonl')[len(data) % 2]}"
    path.write_bytes(data)
    rows = outcome(tables.read_table, ValueError, path)
    assert all(isinstance(value, str) for row in rows or [] for value in row.values())


if __name__ == "__main__":
    target = {"images": images, "pickles": pickles, "tables": read_tables}[sys.argv.pop(1)]
    atheris.Setup(sys.argv, target)
    atheris.Fuzz()
