"""Measure the images per second of the input pipeline against the reference recipe's loader.

    python benchmarks/data_throughput.py [--source_px 1024] [--size 224] [--threads 1] [--workers 2]

Both sides read the same JPEGs and captions from memory and use the same tokenizer. The reference
handles an image as Chinese-CLIP's loader does (Pillow: full decode, bicubic resize; then float32,
normalised, channels first), one image after another, in one thread. Ours is `train_batches`: uint8
batches, normalised later on the accelerator. `ready` and `raw` are the same photographs stored as
squares of 256 px (`build --ready 256`), as JPEGs and as bytes.

Rounds alternate. The results are medians, in images per second and per CPU second. With
`--workers`, each of our sides is also measured with that many worker processes (images per second
only). The last line is one JSON object.
"""

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import cv2
import numpy as np
from PIL import Image

from vclip_jax.data.images.augment import named_policy
from vclip_jax.data.pipeline import train_batches
from vclip_jax.data.record import Record
from vclip_jax.data.text.wordpiece import WordPiece
from vclip_jax.datasets.ingest.store import Storage, store

MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
READY = 256


def photographs(count: int, side: int) -> list[Record]:
    """Draw JPEGs of quality 90 with a disc, vessels and sensor noise on black."""
    made: list[Record] = []
    for index in range(count):
        rng = np.random.Generator(np.random.Philox(index))
        image = np.zeros((side, side, 3), np.uint8)
        cv2.circle(image, (side // 2, side // 2), int(0.48 * side), (40, 80, 180), -1)
        for _ in range(40):
            ends = rng.integers(0, side, 4).tolist()
            cv2.line(image, ends[:2], ends[2:], (20, 30, 110), max(1, side // 200), cv2.LINE_AA)
        noise = rng.normal(0, 3, (side, side, 1))
        lit = image.any(-1, keepdims=True)
        image = np.clip(image + noise * lit, 0, 255).astype(np.uint8)
        data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()
        caption = f"右眼：中度非增殖期糖尿病视网膜病变，黄斑水肿，杯盘比0.{index % 10}。"
        made.append({"image": data, "caption": caption, "key": str(index), "label": -1})
    return made


def ready(records: list[Record], fit: str, *, raw: bool) -> list[Record]:
    """Return the same records as a build with `--ready 256` stores them."""
    storage = Storage(ready=READY, fit=fit, raw=raw)
    return [
        {**record, "image": store(record["image"], storage)[0], "fitted": fit} for record in records
    ]


def reference_batches(
    records: list[Record], tokenizer: WordPiece, batch: int, size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield batches as the reference recipe makes them, without end."""
    order = np.random.Generator(np.random.Philox(0))
    while True:
        images, tokens = [], []
        for index in order.integers(0, len(records), batch):
            opened = Image.open(io.BytesIO(records[index]["image"]))
            resized = opened.resize((size, size), Image.Resampling.BICUBIC).convert("RGB")
            pixels = np.asarray(resized, np.float32) / np.float32(255)
            images.append(((pixels - MEAN) / DEVIATION).transpose(2, 0, 1))
            tokens.append(tokenizer.encode([records[index]["caption"]])[0])
        yield np.stack(images), np.stack(tokens)


def rates(pull: Callable[[], object], images: int, seconds: float) -> tuple[float, float]:
    """Return images per second and per CPU second (of all threads) over at least `seconds`."""
    wall, cpu, calls = time.perf_counter(), time.process_time(), 0
    while time.perf_counter() - wall < seconds:
        pull()
        calls += 1
    done = calls * images
    return done / (time.perf_counter() - wall), done / (time.process_time() - cpu)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--source_px", type=int, default=1024)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--sides", nargs="*", default=[], help="measure only these of our sides")
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument(
        "--workers", type=int, nargs="*", default=[], help="numbers of processes, for example 1 2"
    )
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument(
        "--seconds", type=float, default=1.5, help="duration of one round of one side"
    )
    options = parser.parse_args()

    records = photographs(options.images, options.source_px)
    tokenizer = WordPiece.from_captions(record["caption"] for record in records)
    # Name -> stored records, fit, decoding, augmentation.
    squares = {raw: ready(records, "squash", raw=raw) for raw in (False, True)}
    cases = {
        "squash": (records, "squash", "exact", "recipe"),
        "squash_augmented": (records, "squash", "exact", "fundus"),
        "fundus_augmented": (records, "fundus", "exact", "fundus"),
        "fast": (records, "squash", "fast", "recipe"),
        "ready": (squares[False], "squash", "fast", "recipe"),
        "ready_augmented": (squares[False], "squash", "fast", "fundus"),
        "raw": (squares[True], "squash", "fast", "recipe"),
    }
    sides: dict[str, Iterator] = {}
    sides["pillow_reference"] = reference_batches(records, tokenizer, options.batch, options.size)
    for name, (stored, fit, mode, policy) in cases.items():
        if options.sides and name not in options.sides:
            continue
        for workers in (0, *options.workers):
            sides[f"{name}_workers{workers}" if workers else name] = train_batches(
                stored,
                tokenizer,
                seed=0,
                global_batch_size=options.batch,
                size=options.size,
                fit=fit,
                decode=mode,
                augment=named_policy(policy),
                num_threads=options.threads,
                num_workers=workers,
            )
    if any(options.workers):
        for side in sides.values():
            next(side)  # processes take seconds to start
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for round_ in range(options.rounds + 1):
        for name, side in sides.items():
            # The threads of the other sides are idle: their buffers are full.
            result = rates(side.__next__, options.batch, options.seconds)
            if round_:  # the first round warms up and drains the buffers
                measured[name].append(result)
    report: dict[str, Any] = {
        "source_px": options.source_px,
        "size": options.size,
        "threads": options.threads,
        "mean_bytes": round(statistics.mean(len(record["image"]) for record in records)),
    }
    for name, results in measured.items():
        wall, cpu = (round(statistics.median(column), 1) for column in zip(*results, strict=True))
        report[name] = {"images_per_second": wall}
        if "_workers" not in name:  # the CPU time of workers is not this process's
            report[name] |= {"images_per_cpu_second": cpu}
        print(f"{name:26} {wall:8.1f} images/s" + f" {cpu:8.1f} /CPU-s" * ("_w" not in name))
    print(json.dumps(report))


if __name__ == "__main__":
    main()
