"""A million records, as SynFundus-1M has, where a process may open 256 files.

    pytest -s -m slow tests/datasets/test_million.py

prints times and memory. `RECORDS=100000` in the environment makes it a tenth.
"""

import json
import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

RECORDS = int(os.environ.get("RECORDS", "1000000"))
FILES = 1563
"""As many as SynFundus-1M had in shards of 512 records."""
PROGRAM = Path(__file__).with_name("million.py")


@pytest.mark.slow
def test_a_million_records_are_built_shuffled_and_read_under_a_low_limit(tmp_path):
    run = subprocess.run(
        [sys.executable, str(PROGRAM), str(tmp_path), str(RECORDS), str(FILES)],
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (256, 256)),
        stdout=subprocess.PIPE,
        check=True,
        text=True,
    )
    figures = json.loads(run.stdout.splitlines()[-1])
    print(json.dumps(figures))
    assert figures["records"] == RECORDS
    assert 256 < figures["files"] < 2500
    assert figures["all_once"]
    # Of 32-bit hashes of 20,000 keys, one or two pairs are equal by chance.
    assert figures["different"] > 0.995 * min(RECORDS, 20_000)
    # Stored caption by caption in the source, mixed in each batch and in the dataset's beginning.
    assert figures["captions"] == figures["first_captions"] == 20
    assert figures["peak_mib"] < 6 * 1024
