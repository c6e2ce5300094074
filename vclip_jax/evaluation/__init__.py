"""What a model is worth: zero-shot tasks and how they are scored (`tasks`, `zero_shot`), the data
of a run with them (`data`), all that is measured of a run and where it is written (`measurement`),
Table 1 of the paper (`table1`).

It stands on `predict`; `report` makes pages of the files that it writes.
"""
