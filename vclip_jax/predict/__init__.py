"""A trained model in use: loaded (`pretrained`), asked (`scorer`), embedded by the split, explained
by heat maps; `vclip predict` is a command.

It stands on `interop`, which reads all kinds of weights.
"""
