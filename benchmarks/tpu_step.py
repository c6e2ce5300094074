"""Compile the training step for TPUs and print its memory, arithmetic and predicted time.

    pip install -e '.[tpu]'
    python benchmarks/tpu_step.py [--topology v5e:4x4] [--per_device 256] [--only NAME ...]

You need no TPU (see `vclip_jax.compilation.topologies`). Each program takes minutes to compile,
once: --cache keeps the results. The model is RN50 + RoBERTa-base at 224 px in bfloat16, with
dropout and statistics per device. The variants are:

    padded            52 tokens, everything kept for the gradients
    padded_remat      padded with cheap values computed twice (remat norms, products)
    trimmed           32 tokens, enough for SynFundus-like captions (see docs/performance.md)
    trimmed_remat     trimmed with rematerialisation
    trimmed_norms     trimmed_remat, but the text tower keeps everything
    trimmed_lean      trimmed_remat, but the text tower keeps only the values between blocks
    trimmed_blocks    trimmed with the blocks of both towers computed twice
    micro_batches     trimmed, in two parts

`vclip_jax.compilation.cost` predicts the times. The last line is one JSON object.
"""

import argparse
import json
from pathlib import Path

from vclip_jax.compilation import topologies

REMAT: dict[str, int | str] = {"remat.image": "norms", "remat.text": "products"}
SHORT: dict[str, int | str] = {"tokenizer.context_length": 32}
BLOCKS: dict[str, int | str] = {"remat.image": "blocks", "remat.text": "blocks"}
VARIANTS: dict[str, dict[str, int | str]] = {
    "padded": {},
    "padded_remat": REMAT,
    "trimmed": SHORT,
    "trimmed_remat": SHORT | REMAT,
    "trimmed_norms": {**SHORT, "remat.image": "norms"},
    "trimmed_lean": {**SHORT, **REMAT, "remat.text": "blocks"},
    "trimmed_blocks": SHORT | BLOCKS,
    "micro_batches": {**SHORT, "micro_batches": 2},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--topology", default="v5e:4x4")
    parser.add_argument("--per_device", type=int, default=256, help="pairs on each chip")
    parser.add_argument("--only", nargs="*", choices=VARIANTS, default=list(VARIANTS))
    parser.add_argument("--cache", type=Path, default=Path("runs/compile_cache"))
    options = parser.parse_args()
    topologies.use_no_device()
    topology = topologies.parse(options.topology)
    results: dict[str, dict[str, float | str]] = {}
    print(f"{'':16}{'ms':>8}{'MFU':>8}{'peak GiB':>10}{'TFLOP':>8}{'GB':>8}{'compile s':>11}")
    for name in options.only:
        results[name] = figures(topology, options.per_device, VARIANTS[name], options.cache)
        values = results[name]
        if "error" in values:
            print(f"{name:16}{values['error']}", flush=True)
        else:
            print(
                f"{name:16}{values['predicted_ms']:8.1f}{values['mfu']:8.1%}"
                f"{values['peak_gib']:10.2f}{values['tflop']:8.2f}{values['gb']:8.1f}"
                f"{values['compile_seconds']:11.0f}",
                flush=True,
            )
    print(json.dumps(results))


def figures(
    topology: topologies.Topology, per_device: int, changes: dict[str, int | str], cache: Path
) -> dict[str, float | str]:
    """Return the compiler's figures of one variant."""
    from vclip_jax import config as config_lib
    from vclip_jax.compilation.plan import report_step

    config = config_lib.default()
    config.data.dataset = "synfundus"
    config.model.batch_norm = "device"
    config.global_batch_size = per_device * len(topology.devices)
    config.update_from_flattened_dict(changes)
    try:
        report, _ = report_step(config, topology, vocab_size=21128, cache_dir=cache)
    except ValueError as error:  # it does not fit
        return {"error": str(error)}
    each = report["per_device"]
    return {
        "predicted_ms": round(each["predicted_ms"], 1),
        "mfu": round(report["mfu"], 4),
        "peak_gib": round(each["peak_bytes"] / 2**30, 2),
        "tflop": round(each["flops"] / 1e12, 2),
        "gb": round(each["bytes_accessed"] / 1e9, 1),
        "compile_seconds": report["compile_seconds"],
    }


if __name__ == "__main__":
    main()
