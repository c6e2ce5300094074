"""The use of a trained model: loading (`pretrained`), zero-shot scores (`scorer`), embeddings of
whole splits (`embeddings`), heat maps (`heat_maps`), offsets for a stated prevalence
(`prior_matching`), and the commands `vclip predict` and `vclip embed`.

The room uses `interop`, which reads all kinds of weights.
"""
