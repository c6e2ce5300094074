"""Training: the state and the step (`state`, `step`), both made from a config (`build`), what is
fed to them (`inputs`), what watches them (`guards`, `goodput`), and checkpoints.

It stands on `models`, `data`, `datasets` and `tracking`, and knows nothing of evaluation.
"""
