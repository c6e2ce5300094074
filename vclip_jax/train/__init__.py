"""Training: the state and the step (`state`, `step`), both made from a config (`build`), what is
fed to them (`inputs`, `whitening`), the workdir (`run`) and its checkpoints (`checkpoint`, read by
`verification`), and the loop around the step (`loop`): what is due (`due`), what watches
(`guards`), where the time goes (`goodput`).

It stands on `models`, `data`, `datasets` and `tracking`, and knows nothing of evaluation.
"""
