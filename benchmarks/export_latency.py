"""Time a call of each tower: the model itself, its StableHLO and its ONNX export.

    pip install -e '.[onnx]'          # without it, ONNX is left out
    python benchmarks/export_latency.py [--config quickstart] [--batches 1 32] [--rounds 15]

The model has random weights and is exported into a temporary folder. All sides compute in float32
on the same processors (--threads) from arrays in memory, without preprocessing and tokenizer.
Rounds alternate between the sides. The results are medians and quartiles. The last line is one JSON
object with milliseconds, and each side's time as a multiple of the model's own in the same round
(median over rounds).
"""

import argparse
import importlib.util
import json
import os
import statistics
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

MODELS = {
    "quickstart": {
        "model": {
            "embed_dim": 256,
            "vision_layers": [1, 1, 1, 1],
            "vision_width": 16,
            "vision_pool": "mean",
            "text_width": 128,
            "text_layers": 2,
            "text_heads": 4,
            "text_mlp_width": 256,
            "text_max_positions": 64,
            "text_pool": "mean",
        },
        "data": {"image_size": 128},
        "tokenizer": {"context_length": 52, "vocab_size": 512},
    },
    "visionclip": {},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--config", choices=tuple(MODELS), default="quickstart", help="model whose sizes are used"
    )
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 32])
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    # Before JAX and onnxruntime start their thread pools.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    os.environ["JAX_PLATFORMS"] = "cpu"
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        sides, inputs = make_sides(MODELS[options.config], Path(folder))
        for tower in ("image", "text"):
            for batch in options.batches:
                given = inputs(tower, batch)
                calls = {name: partial(side[tower], given) for name, side in sides.items()}
                rows.append({"tower": tower, "batch": batch, **measure(calls, options.rounds)})
                print(table(rows[-1:]), flush=True)
    machine = processor()
    print(f"\n{machine}, {options.threads} of its processors\n\n{table(rows, header=True)}\n")
    print(json.dumps({"config": options.config, "machine": machine, "rows": rows}))


def make_sides(
    config: dict[str, Any], folder: Path
) -> tuple[dict[str, dict[str, Callable]], Callable]:
    """Return side -> tower -> call, and a function from (tower, batch) to inputs."""
    import jax
    import numpy as np

    from vclip_jax.data.text.wordpiece import WordPiece
    from vclip_jax.interop.export import onnx, stablehlo, towers
    from vclip_jax.interop.weights import Weights, complete_config, expected_arrays

    config = complete_config(config, origin="benchmark")
    rng = np.random.default_rng(0)
    arrays = {
        # Small and positive, so that no variance is negative and nothing overflows.
        name: rng.uniform(0.01, 0.05, leaf.shape).astype(np.float32)
        for name, leaf in expected_arrays(config).items()
    }
    weights = Weights(config, arrays)
    vocab = config["tokenizer"]["vocab_size"]
    special = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    tokenizer = WordPiece([*special, *(f"t{index}" for index in range(vocab - len(special)))])

    own = {}
    for tower in towers.towers(config):
        read = jax.device_put({name: arrays[name] for name in tower.reads})
        function = jax.jit(tower.function)
        own[tower.name] = lambda x, f=function, r=read: np.asarray(f(r, x))
    sides = {"model": own}
    formats = {"stablehlo": stablehlo}
    if all(importlib.util.find_spec(name) for name in ("jax2onnx", "onnxruntime")):
        formats["onnx"] = onnx
    for name, module in formats.items():
        module.save(folder / name, weights, tokenizer, card="")
        loaded = module.load(folder / name)
        sides[name] = {"image": loaded.encode_image, "text": loaded.encode_text}

    def inputs(tower: str, batch: int) -> np.ndarray:
        if tower == "image":
            size = config["data"]["image_size"]
            return rng.integers(0, 256, (batch, size, size, 3), np.uint8)
        length = config["tokenizer"]["context_length"]
        return rng.integers(5, vocab, (batch, length)).astype(np.int32)

    return sides, inputs


def measure(calls: Mapping[str, Callable], rounds: int) -> dict[str, Any]:
    """Return median milliseconds and quartiles of each side, and its median ratio to the model."""
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():  # compiles
        call()
        call()
    for _ in range(rounds):
        for name, call in calls.items():
            start = time.perf_counter()
            call()
            seconds[name].append(time.perf_counter() - start)
    first = seconds["model"]
    return {
        name: {
            "ms": round(statistics.median(times) * 1000, 2),
            "ms_quartiles": [round(q * 1000, 2) for q in statistics.quantiles(times, n=4)[::2]],
            "ratio": round(statistics.median(t / f for t, f in zip(times, first, strict=True)), 2),
        }
        for name, times in seconds.items()
    }


def table(rows: list[dict[str, Any]], *, header: bool = False) -> str:
    """Format rows as Markdown: milliseconds, and in brackets the multiple of the model's time."""
    names = [name for name in rows[0] if name not in ("tower", "batch")]
    lines = []
    if header:
        lines = ["| tower | batch | " + " | ".join(names) + " |", "|---" * (len(names) + 2) + "|"]
    for row in rows:
        cells = [f"{row[name]['ms']:g} ms ({row[name]['ratio']:.2f})" for name in names]
        lines.append(f"| {row['tower']} | {row['batch']} | {' | '.join(cells)} |")
    return "\n".join(lines)


def processor() -> str:
    """Return the processor's name from `lscpu`, with the number of CPUs."""
    text = subprocess.run(["lscpu"], capture_output=True, text=True, check=True).stdout
    fields = dict(line.split(":", 1) for line in text.splitlines() if ":" in line)
    return f"{fields['Model name'].strip()}, {fields['CPU(s)'].strip()} CPUs"


if __name__ == "__main__":
    main()
