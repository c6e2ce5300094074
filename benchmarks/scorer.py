"""Compare zero-shot scoring on a CPU with Chinese-CLIP and open_clip on PyTorch.

    pip install -e '.[parity]'
    python benchmarks/scorer.py [--batch 32] [--batches 1] [--threads 2] [--rounds 5]

All sides embed and score the same images at 224 px against the same four classes, with the same
number of threads: (a) Chinese-CLIP's RN50 + RoBERTa as in its zero-shot evaluation, (b) open_clip's
RN50, (c) our RN50 + RoBERTa. PyTorch uses channels_last and inference mode, and its images are
normalised beforehand. Ours takes uint8 images and normalises them. Text is embedded beforehand,
because a run embeds it once. A call takes `--batches` batches; ours encodes one on each core at a
time. Rounds alternate; the results are medians. The last line is one JSON object, in images per
second.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--batches", type=int, default=1, help="number of batches in a call")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--calls", type=int, default=3, help="number of calls in a round")
    options = parser.parse_args()
    # Before JAX and PyTorch start their thread pools.
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[: options.threads])
    os.environ["JAX_PLATFORMS"] = "cpu"
    results = {}
    for precision in ("float32", "bfloat16"):
        sides = {
            "cn_clip": cn_clip_side(options, precision),
            "open_clip": open_clip_side(options, precision),
            "ours": our_side(options, precision),
        }
        for run in sides.values():
            run()
        speeds: dict[str, list[float]] = {name: [] for name in sides}
        for _ in range(options.rounds):
            for name, run in sides.items():
                start = time.perf_counter()
                for _ in range(options.calls):
                    run()
                seconds = time.perf_counter() - start
                images = options.batch * options.batches * options.calls
                speeds[name].append(images / seconds)
        results[precision] = {n: round(statistics.median(s), 2) for n, s in speeds.items()}
        print(precision, results[precision], flush=True)
    print(json.dumps(results))


def torch_side(options: argparse.Namespace, precision: str, model, width: int) -> Callable:
    """Return a call of `encode_image`, normalisation and logits of a PyTorch model."""
    import torch

    torch.set_num_threads(options.threads)
    dtype = getattr(torch, precision)
    model = model.eval().to(memory_format=torch.channels_last).to(dtype)
    images = torch.randn(options.batch, 3, 224, 224, dtype=dtype)
    images = images.contiguous(memory_format=torch.channels_last)
    classes = torch.nn.functional.normalize(torch.randn(4, width, dtype=dtype), dim=-1)

    def run() -> None:
        with torch.inference_mode():
            for _ in range(options.batches):
                features = model.encode_image(images)
                features = features / features.norm(dim=-1, keepdim=True)
                (100 * features @ classes.T).softmax(dim=-1).float().numpy()

    return run


def cn_clip_side(options: argparse.Namespace, precision: str) -> Callable:
    from cn_clip.clip.model import CLIP

    model = CLIP(
        embed_dim=1024,
        image_resolution=224,
        vision_layers=[3, 4, 6, 3],
        vision_width=64,
        vision_patch_size=None,
        vocab_size=21128,
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
    return torch_side(options, precision, model, 1024)


def open_clip_side(options: argparse.Namespace, precision: str) -> Callable:
    import open_clip

    return torch_side(options, precision, open_clip.create_model("RN50", pretrained=None), 1024)


def our_side(options: argparse.Namespace, precision: str) -> Callable:
    import jax
    import jax.numpy as jnp
    import numpy as np
    from flax import nnx

    from vclip_jax import config as config_lib
    from vclip_jax.devices import sharding
    from vclip_jax.models.build import build_clip, split_model
    from vclip_jax.predict.scorer import Scorer, class_probabilities

    model = config_lib.default().model
    graphdef, params, batch_stats = split_model(
        build_clip(model, nnx.Rngs(0), image_size=224, vocab_size=21128, dtype=jnp.dtype(precision))
    )
    scorer = Scorer(graphdef, sharding.make_mesh(1, jax.devices()[:1]), lambda texts: np.empty(0))
    rng = np.random.default_rng(0)
    images = jnp.asarray(rng.integers(0, 256, (options.batch, 224, 224, 3)), jnp.uint8)
    batches = [
        {
            "image": images,
            "label": jnp.zeros(options.batch, jnp.int32),
            "index": number * options.batch + jnp.arange(options.batch),
        }
        for number in range(options.batches)
    ]
    classes = rng.standard_normal((4, 1024)).astype(np.float32)
    classes /= np.linalg.norm(classes, axis=1, keepdims=True)

    def run() -> None:
        embeddings, _ = scorer.embed_images((params, batch_stats), batches)
        np.asarray(class_probabilities(embeddings, classes, params["logit_scale"]))

    return run


if __name__ == "__main__":
    main()
