"""Files that strangers made: read within limits of size, depth, memory and time.

The ground floor, with `console`: it imports nothing else of the package.
"""
