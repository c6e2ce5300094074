"""Training: the state and the step (`state`, `step`), made from a config (`build`); the data and
the initial weights (`inputs`, `whitening`); the workdir (`run`) and its checkpoints (`checkpoint`,
read by `verification`); and the loop (`loop`) with its timetable (`due`), its checks of the loss
(`guards`) and its use of time (`goodput`).

The room uses `models`, `data`, `datasets` and `tracking`, and nothing of evaluation.
"""
