"""Time a training step of RN50 + RoBERTa-base on a CPU against Chinese-CLIP on PyTorch.

    pip install -e '.[parity]'
    python benchmarks/cpu_step.py [--batch 16] [--threads 2] [--rounds 5]

Both sides take the same batch at 224 px with 52 tokens, with the same number of threads and dropout
on, through forward pass, contrastive loss, backward pass and AdamW:

(a) Chinese-CLIP's model, loss and optimizer as in its trainer (channels_last; autocast for
    bfloat16), with images normalised beforehand;
(b) our jitted step as `vclip_jax.main` runs it, from uint8 images, which the step normalises.

Each side is a separate process, because memory of one side slows the steps of the other. In a round
the sides take turns of some steps each. The ratio is the median over the rounds: other load on the
machine slows both sides. The first step of a turn does not count, because it faults in memory that
the system took back during the other turn. glibc uses huge pages for both sides, as
docs/performance.md recommends for CPUs (`GLIBC_TUNABLES=` before the command: small pages). The
last line is one JSON object with medians in pairs per second.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

CONTEXT_LENGTH, VOCABULARY = 52, 21128
ENVIRONMENT = {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=3, help="number of counted steps in a turn")
    parser.add_argument("--precision", choices=("float32", "bfloat16"), action="append")
    parser.add_argument(
        "--side", choices=SIDES, help="run this side only, one step for each input line"
    )
    options = parser.parse_args()
    precisions = options.precision or ["float32", "bfloat16"]
    if options.side:
        take_steps(options, precisions[0])
        return
    results = {}
    for precision in precisions:
        speeds = in_turns(options, precision)
        medians = {name: statistics.median(values) for name, values in speeds.items()}
        results[precision] = {name: round(value, 3) for name, value in medians.items()}
        turns = zip(speeds["ours"], speeds["cn_clip"], strict=True)
        ratios = [ours / theirs for ours, theirs in turns]
        lowest, ratio, highest = min(ratios), statistics.median(ratios), max(ratios)
        print(
            f"{precision}: {results[precision]}, ours / cn_clip {ratio:.2f}, of {options.rounds} "
            f"rounds {lowest:.2f} to {highest:.2f}",
            flush=True,
        )
    print(json.dumps(results))


def in_turns(options: argparse.Namespace, precision: str) -> dict[str, list[float]]:
    """Return pairs per second of each side, from the median step of each turn."""
    command = [sys.executable, __file__, f"--precision={precision}"]
    command += [f"--{key}={vars(options)[key]}" for key in ("batch", "threads")]
    speeds: dict[str, list[float]] = {name: [] for name in SIDES}
    with ExitStack() as running:
        sides = {}
        for name in SIDES:
            sides[name] = running.enter_context(
                subprocess.Popen(
                    [*command, f"--side={name}"],
                    text=True,
                    env=ENVIRONMENT | os.environ,
                    stdin=subprocess.PIPE,
                    stdout=subprocess.PIPE,
                )
            )
            one_step(sides[name])  # compiles
        for _ in range(options.rounds):
            for name, side in sides.items():
                turn = [one_step(side) for _ in range(1 + options.steps)][1:]
                speeds[name].append(options.batch / statistics.median(turn))
    return speeds


def one_step(side: subprocess.Popen[str]) -> float:
    """Run the next step of a side and return its seconds."""
    assert side.stdin
    assert side.stdout
    side.stdin.write("\n")
    side.stdin.flush()
    answer = side.stdout.readline()
    if not answer:
        raise SystemExit("cpu_step: a side ended: see its message above")
    return float(answer)


def take_steps(options: argparse.Namespace, precision: str) -> None:
    """Run one step of a side for each input line and print its seconds."""
    # Before JAX and PyTorch start their thread pools.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    os.environ["JAX_PLATFORMS"] = "cpu"
    run = SIDES[options.side](options, precision)
    for _ in sys.stdin:
        start = time.perf_counter()
        run()
        print(time.perf_counter() - start, flush=True)


def cn_clip_side(options: argparse.Namespace, precision: str) -> Callable[[], None]:
    """Make steps of Chinese-CLIP's model with its trainer's loss and parameter groups."""
    import torch
    from cn_clip.clip.model import CLIP

    torch.set_num_threads(options.threads)
    torch.manual_seed(0)
    model = CLIP(
        embed_dim=1024,
        image_resolution=224,
        vision_layers=[3, 4, 6, 3],
        vision_width=64,
        vision_patch_size=None,
        vocab_size=VOCABULARY,
        text_attention_probs_dropout_prob=0.1,
        text_hidden_act="gelu",
        text_hidden_dropout_prob=0.1,
        text_hidden_size=768,
        text_initializer_range=0.02,
        text_intermediate_size=3072,
        text_max_position_embeddings=512,
        text_num_attention_heads=12,
        text_num_hidden_layers=12,
        text_type_vocab_size=2,
    )
    model = model.float().train().to(memory_format=torch.channels_last)
    named = [(n, p) for n, p in model.named_parameters() if p.requires_grad]
    plain = [p for n, p in named if p.ndim < 2 or any(w in n for w in ("bn", "ln", "bias"))]
    kept = {id(p) for p in plain}
    groups = [
        {"params": plain, "weight_decay": 0.0},
        {"params": [p for _, p in named if id(p) not in kept], "weight_decay": 0.2},
    ]
    optimizer = torch.optim.AdamW(groups, lr=5e-4, betas=(0.9, 0.999), eps=1e-8)
    images = torch.randn(options.batch, 3, 224, 224).contiguous(memory_format=torch.channels_last)
    tokens = torch.randint(1, VOCABULARY, (options.batch, CONTEXT_LENGTH))
    truth = torch.arange(options.batch)

    def run() -> None:
        optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "bfloat16"):
            image, text, scale = model(images, tokens)
            logits = scale.mean() * image @ text.T
            loss = torch.nn.functional.cross_entropy(logits, truth)
            loss = (loss + torch.nn.functional.cross_entropy(logits.T, truth)) / 2
        loss.backward()
        optimizer.step()
        model.logit_scale.data.clamp_(0, 4.6052)
        loss.item()

    return run


def our_side(options: argparse.Namespace, precision: str) -> Callable[[], None]:
    """Make steps of the training of `configs/visionclip.py`."""
    import jax
    import numpy as np

    from vclip_jax import config as config_lib
    from vclip_jax.devices import sharding
    from vclip_jax.train.build import make_training

    config = config_lib.default()
    config.compute_dtype = precision
    config.global_batch_size = options.batch
    config.tokenizer.context_length = CONTEXT_LENGTH
    mesh = sharding.make_mesh(1, jax.devices()[:1])
    training = make_training(config, mesh, VOCABULARY)
    state = jax.jit(training.init, out_shardings=training.placement)()
    rng = np.random.default_rng(0)
    size = config.data.image_size
    tokens = rng.integers(1, VOCABULARY, (options.batch, CONTEXT_LENGTH))
    batch: Any = {
        "image": rng.integers(0, 256, (options.batch, size, size, 3)).astype(np.uint8),
        "tokens": tokens.astype(np.int32),
    }

    def run() -> None:
        nonlocal state
        state, metrics = training.step(state, batch)
        float(metrics["loss"])

    return run


SIDES = {"cn_clip": cn_clip_side, "ours": our_side}

if __name__ == "__main__":
    main()
