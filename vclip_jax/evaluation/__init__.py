"""Evaluation: zero-shot tasks and their scores (`tasks`, `zero_shot`), the data of a run (`data`),
all measurements of a run and their files (`measurement`), Table 1 of the paper (`table1`),
temperature and class offsets (`calibration`), and few-shot probes (`probe`).

The room uses `predict`; `report` makes pages from the files that it writes.
"""
