"""The command `vclip embed`: embeddings of many photographs in one Parquet file.

`inputs` finds the photographs, `columns` holds their rows, `parts` keeps finished rows until the
file is joined, so that a killed command resumes, and `command` runs the model.
"""
