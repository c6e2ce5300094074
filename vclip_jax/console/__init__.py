"""The terminal: what all commands share (`commands`), progress bars, whose warnings are shown.

It stands on `files`, and imports nothing else of the package.
"""
