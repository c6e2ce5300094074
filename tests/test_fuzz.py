"""The fuzzers' files: valid ones are read, damaged ones read or refused, and always the same."""

import random
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))
import fuzz
import fuzz_formats

# The others start a process or compile.
QUICK = [
    one
    for one in fuzz_formats.formats()
    if not one.name.startswith("checkpoint")
    and one.name not in ("xlsx", "xls", "cn_clip.pt", "model.safetensors")
]
FEW = 12


@pytest.mark.parametrize("one", QUICK, ids=lambda one: one.name)
def test_valid_files_are_read_and_damaged_ones_read_or_refused_in_one_line(one, tmp_path):
    if one.name not in ("jpg", "tif", "png", "bmp", "webp", "ppm"):  # some modes are refused
        assert fuzz.try_file(one, one.make(random.Random(1)), tmp_path / "f") == ("read", "")
    outcomes = set()
    for index in range(FEW):
        outcome, words = fuzz.try_file(one, fuzz.content(one, 5, index), tmp_path / "f")
        assert outcome in ("read", "refused"), words
        outcomes.add(outcome)
    assert "refused" in outcomes


def test_a_files_number_and_seed_are_its_content():
    one = next(one for one in QUICK if one.name == "csv")
    again = [fuzz.content(one, 3, index) for index in range(20)]
    assert again == [fuzz.content(one, 3, index) for index in range(20)]
    assert len(set(again)) > 15
    assert again != [fuzz.content(one, 4, index) for index in range(20)]


def test_what_escapes_is_seen(tmp_path):
    def read(path):
        text = path.read_text()
        if text == "lines":
            raise ValueError("a\nb")
        if text == "type":
            raise TypeError("x")
        if text == "bad":
            raise ValueError("one line")

    one = fuzz_formats.Format("txt", lambda rng: b"", fuzz_formats.flip, read)
    found = {
        text: fuzz.try_file(one, text.encode(), tmp_path / "f")[0]
        for text in ("good", "bad", "lines", "type")
    }
    assert found == {"good": "read", "bad": "refused", "lines": "escaped", "type": "escaped"}
