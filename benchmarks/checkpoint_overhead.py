"""Measure the cost of a checkpoint every 50 steps against the same steps without.

    python benchmarks/checkpoint_overhead.py [--config configs/quickstart.py] [--every 50]
        [--rounds 3]

Blocks of `--every` steps alternate, with and without a save at their beginning. A block with a save
ends when the save has also ended. Batches are random and on the device: without the work of the
pipeline, the share of the saves is larger. The results are medians. The last line is one JSON
object.
"""

import argparse
import json
import runpy
import statistics
import tempfile
import time
from pathlib import Path

import jax
import numpy as np

from vclip_jax.devices import sharding, tree
from vclip_jax.train import build
from vclip_jax.train.array_checksums import fingerprints
from vclip_jax.train.checkpoint import Checkpoints


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--config", default="configs/quickstart.py")
    parser.add_argument("--every", type=int, default=50, help="steps between checkpoints")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    config = runpy.run_path(options.config)["get_config"]()
    mesh = sharding.make_mesh(config.mesh.fsdp)
    made = build.make_training(config, mesh, vocab_size=512)
    state = jax.jit(made.init, out_shardings=made.placement)()
    rng = np.random.default_rng(0)
    _, shapes = build.step_arguments(config, mesh, made)
    batch = {
        name: jax.device_put(rng.integers(0, 256, x.shape).astype(x.dtype), x.sharding)
        for name, x in shapes.items()
    }
    state, _ = jax.block_until_ready(made.step(state, batch))
    seconds: dict[str, list[float]] = {"plain": [], "saving": [], "blocking": [], "fingerprint": []}
    with tempfile.TemporaryDirectory() as folder, Checkpoints(Path(folder), keep=2) as checkpoints:
        checkpoints.save(state, 0)  # exclude the cost of the first save
        checkpoints.check(wait=True)
        for index in range(options.rounds):
            for kind in ("plain", "saving")[:: 1 if index % 2 else -1]:
                start = time.perf_counter()
                if kind == "saving":
                    checkpoints.save(state, int(state.step))
                    seconds["blocking"].append(time.perf_counter() - start)
                for _ in range(options.every):
                    state, metrics = made.step(state, batch)
                    jax.block_until_ready(metrics)
                checkpoints.check(wait=True)
                seconds[kind].append(time.perf_counter() - start)
            start = time.perf_counter()
            fingerprints(state)
            seconds["fingerprint"].append(time.perf_counter() - start)
            print(
                f"round {index}: {seconds['plain'][-1]:.2f} s without, "
                f"{seconds['saving'][-1]:.2f} s with a checkpoint"
            )
    median = {name: statistics.median(values) for name, values in seconds.items()}
    print(
        json.dumps(
            {
                "config": options.config,
                "devices": f"{mesh.size} x {jax.devices()[0].device_kind}",
                "parameters": tree.count(state.params),
                "steps": options.every,
                "rounds": options.rounds,
                "seconds_without": round(median["plain"], 3),
                "seconds_with": round(median["saving"], 3),
                "overhead": round(median["saving"] / median["plain"] - 1, 4),
                "blocking_seconds": round(median["blocking"], 3),
                "fingerprint_seconds": round(median["fingerprint"], 3),
            }
        )
    )


if __name__ == "__main__":
    main()
