"""Build, shuffle and read a million records: `python tests/datasets/million.py DIR RECORDS FILES`.

The last line is one JSON object of times in seconds and memory in MiB. It is a program of its own,
because its worker processes import it, and because its memory is measured.
"""

import io
import json
import resource
import sys
import time
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image

from vclip_jax.data.order import permuted
from vclip_jax.data.pipeline import train_batches
from vclip_jax.data.text.wordpiece import WordPiece
from vclip_jax.datasets import open_source
from vclip_jax.datasets.ingest import build
from vclip_jax.datasets.listing import Blob, Item, Listing


def main(folder: Path, records: int, files: int) -> None:
    picture = io.BytesIO()
    Image.fromarray(np.full((32, 32, 3), 90, np.uint8)).save(picture, "JPEG")
    (folder / "eye.jpg").write_bytes(picture.getvalue())
    start = time.perf_counter()
    captions = [f"condition {i}" for i in range(20)]
    blob = Blob(str(folder / "eye.jpg"))
    items = [
        Item(f"eye-{i:07}", "train", blob, captions[i * 20 // records], -1) for i in range(records)
    ]
    shard = records * (len(picture.getvalue()) + 80) // files
    with mock.patch.object(build, "SHARD_BYTES", shard):
        built = build.build(Listing("many", (), items), folder, workers=2)
    figures: dict[str, float] = {"build_s": time.perf_counter() - start}
    figures["build_mib"] = peak(resource.RUSAGE_SELF)
    figures["worker_mib"] = peak(resource.RUSAGE_CHILDREN)
    figures["files"] = len(list(built.glob("*.array_record-*")))

    start = time.perf_counter()
    source = open_source("many", folder, "train")
    figures |= {"open_s": time.perf_counter() - start, "records": len(source)}

    start = time.perf_counter()
    order = permuted(np.arange(records), records, 0)
    figures["order_s"] = time.perf_counter() - start
    figures["all_once"] = bool((np.bincount(order, minlength=records) == 1).all())

    tokenizer = WordPiece.from_captions(captions)
    batches = train_batches(
        source, tokenizer, seed=0, global_batch_size=1000, size=32, context_length=16, num_threads=2
    )
    keys, different = list[int](), list[int]()
    start = time.perf_counter()
    for _ in range(20):
        batch = next(batches)
        keys += batch["key_hash"].tolist()
        different.append(len(set(batch["caption_id"].tolist())))
    figures["read_per_s"] = len(keys) / (time.perf_counter() - start)
    figures |= {"different": len(set(keys)), "captions": min(different)}
    batches.close()
    figures["peak_mib"] = peak(resource.RUSAGE_SELF)
    figures["first_captions"] = len({source[i]["caption"] for i in range(1000)})
    print(json.dumps({k: round(v, 1) if isinstance(v, float) else v for k, v in figures.items()}))


def peak(who: int) -> float:
    """The most memory that a process held, in MiB."""
    return resource.getrusage(who).ru_maxrss / 2**10


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
