"""The commands of the package under one name: `vclip COMMAND`, or `python -m vclip_jax COMMAND`."""

from typing import Final

COMMANDS: Final = {
    "train": ("vclip_jax.main", "train a model, evaluate it, write the report"),
    "eval": ("vclip_jax.main", "evaluate a trained model"),
    "plan": ("vclip_jax.main", "compile the training step for accelerators that are not here"),
    "predict": ("vclip_jax.predict", "classify photographs"),
    "probe": ("vclip_jax.evaluation.probe", "few-shot probes of a model's image embeddings"),
    "audit": ("vclip_jax.audit", "find near-duplicates between two datasets"),
    "datasets": ("vclip_jax.datasets", "build, list, show and export datasets"),
    "weights": ("vclip_jax.interop", "convert the weights of other systems"),
    "report": ("vclip_jax.report", "write the page of a run, or compare runs"),
    "demo": ("vclip_jax.demo", "try a model on photographs in a browser"),
    "drills": ("vclip_jax.drills", "break runs on purpose and count what is lost"),
}
"""Command -> its module and what it does."""
