"""The terminal: the set-up that all commands share, progress bars, log lines.

The ground floor, with `files`: it imports nothing else of the package.
"""
