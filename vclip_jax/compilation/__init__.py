"""Programs compiled ahead of time for accelerators that are not here: memory, time and traffic of
a training step (`plan`), from the compiled text (`hlo`, `cost`).
"""
