"""A million records, as SynFundus-1M has, where a process may open 256 files.

    pytest -s -m slow tests/datasets/test_million.py

prints times and memory. `RECORDS=100000` in the environment makes it a tenth.
"""

import json
import os
import resource
import subprocess
import sys

import pytest

RECORDS = int(os.environ.get("RECORDS", "1000000"))
FILES = 1563
"""As many as SynFundus-1M had in shards of 512 records."""

SCRIPT = """
import io, json, resource, sys, time
from pathlib import Path

import numpy as np
from PIL import Image

from vclip_jax.data.order import permuted
from vclip_jax.data.pipeline import train_batches
from vclip_jax.data.text.wordpiece import WordPiece
from vclip_jax.datasets import ingest, open_source
from vclip_jax.datasets.listing import Blob, Item, Listing

folder, records, files = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])


def peak(who):
    return resource.getrusage(who).ru_maxrss / 2**10


def main():
    picture = io.BytesIO()
    Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(picture, "JPEG")
    (folder / "eye.jpg").write_bytes(picture.getvalue())
    start = time.perf_counter()
    captions = [f"condition {i}" for i in range(20)]
    blob = Blob(str(folder / "eye.jpg"))
    items = [
        Item(f"eye-{i:07}", "train", blob, captions[i * 20 // records], -1) for i in range(records)
    ]
    ingest.SHARD_BYTES = records * (len(picture.getvalue()) + 80) // files
    built = ingest.build(Listing("many", (), items), folder, workers=2)
    figures = {"build_s": time.perf_counter() - start}
    figures["build_mib"] = peak(resource.RUSAGE_SELF)
    figures["worker_mib"] = peak(resource.RUSAGE_CHILDREN)
    figures["files"] = len(list(built.glob("*.array_record-*")))

    start = time.perf_counter()
    source = open_source("many", folder, "train")
    figures |= {"open_s": time.perf_counter() - start, "records": len(source)}

    start = time.perf_counter()
    order = permuted(np.arange(records), records, 0)
    figures |= {"order_s": time.perf_counter() - start}
    figures["all_once"] = bool((np.bincount(order, minlength=records) == 1).all())

    tokenizer = WordPiece.from_captions(captions)
    batches = train_batches(
        source, tokenizer, seed=0, global_batch_size=1000, size=32, context_length=16, num_threads=2
    )
    keys, twins = [], []
    start = time.perf_counter()
    for _ in range(20):
        batch = next(batches)
        keys += batch["key_hash"].tolist()
        twins.append(len(set(batch["caption_id"].tolist())))
    figures["read_per_s"] = len(keys) / (time.perf_counter() - start)
    figures |= {"different": len(set(keys)), "captions": min(twins)}
    batches.close()
    figures["peak_mib"] = peak(resource.RUSAGE_SELF)
    first = [source[i]["caption"] for i in range(1000)]
    figures["first_captions"] = len(set(first))
    print(json.dumps({k: round(v, 1) if isinstance(v, float) else v for k, v in figures.items()}))


if __name__ == "__main__":
    main()
"""


@pytest.mark.slow
def test_a_million_records_are_built_shuffled_and_read_under_a_low_limit(tmp_path):
    script = tmp_path / "million.py"
    script.write_text(SCRIPT)
    run = subprocess.run(
        [sys.executable, str(script), str(tmp_path), str(RECORDS), str(FILES)],
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
