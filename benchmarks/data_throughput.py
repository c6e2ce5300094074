"""How many images a second the input pipeline delivers, beside the reference recipe's loader.

    python benchmarks/data_throughput.py [--source_px 1024] [--size 224] [--threads 1]

Both sides read the same JPEGs and captions from memory and tokenize with the same tokenizer. The
reference does what Chinese-CLIP's loader does to an image (Pillow: full decode, bicubic resize;
then float32, normalised, channels first), one image after another, in one thread. Ours is
`train_batches`: uint8 batches, normalised later on the accelerator. Rounds alternate; medians are
reported, in images per second and per CPU second. The last line is one JSON object.
"""

import argparse
import io
import json
import statistics
import time
from collections.abc import Callable, Iterator

import cv2
import numpy as np
from PIL import Image

from vclip_jax.data.augment import named_policy
from vclip_jax.data.pipeline import train_batches
from vclip_jax.data.tokenizer import Tokenizer
from vclip_jax.datasets.records import Record

MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
DEVIATION = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


def photographs(count: int, side: int) -> list[Record]:
    """JPEGs of quality 90 with a disc, vessels and sensor noise on black."""
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


def reference_batches(
    records: list[Record], tokenizer: Tokenizer, batch: int, size: int
) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """The reference recipe's work, over and over."""
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
    """Images per second and per CPU second (of all threads) over at least `seconds`."""
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
    parser.add_argument("--images", type=int, default=64)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=1.5, help="of one round of one side")
    options = parser.parse_args()

    records = photographs(options.images, options.source_px)
    tokenizer = Tokenizer.from_captions(record["caption"] for record in records)
    cases = {"pillow_reference": ("", ""), "squash": ("squash", "recipe")}
    cases |= {"squash_augmented": ("squash", "fundus"), "fundus_augmented": ("fundus", "fundus")}
    sides: dict[str, Iterator] = {}
    for name, (fit, policy) in cases.items():
        if name == "pillow_reference":
            sides[name] = reference_batches(records, tokenizer, options.batch, options.size)
            continue
        sides[name] = train_batches(
            records,
            tokenizer,
            seed=0,
            global_batch_size=options.batch,
            size=options.size,
            fit=fit,
            augment=named_policy(policy),
            num_threads=options.threads,
        )
    measured: dict[str, list[tuple[float, float]]] = {name: [] for name in sides}
    for round_ in range(options.rounds + 1):
        for name, side in sides.items():
            # Threads of the others idle: their buffers are full.
            result = rates(side.__next__, options.batch, options.seconds)
            if round_:  # the first warms up and drains what was buffered
                measured[name].append(result)
    report: dict[str, object] = {
        "source_px": options.source_px,
        "size": options.size,
        "threads": options.threads,
        "mean_bytes": round(statistics.mean(len(record["image"]) for record in records)),
    }
    for name, results in measured.items():
        wall, cpu = (round(statistics.median(column), 1) for column in zip(*results, strict=True))
        report[name] = {"images_per_second": wall, "images_per_cpu_second": cpu}
        print(f"{name:18} {wall:8.1f} images/s {cpu:8.1f} images/CPU-s")
    print(json.dumps(report))


if __name__ == "__main__":
    main()
