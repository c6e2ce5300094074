"""Faults on purpose, and a count of how often nothing was lost: `python -m vclip_jax.drills`."""
