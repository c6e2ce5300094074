"""Evaluation: zero-shot tasks and their scores (`tasks`, `zero_shot`), the data of a run (`data`),
all measurements of a run and their files (`measurement`), and Table 1 of the paper (`table1`).

The room uses `predict`; `report` makes pages from the files that it writes.
"""
