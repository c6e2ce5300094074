"""The terminal: the parts that all commands share (`commands`), progress bars, filtered warnings.

This room imports `files`, and nothing else of the package.
"""
