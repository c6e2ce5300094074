"""Files: those of strangers read within limits of size, depth, memory and time, our own written
whole, and errors as one line.

The ground floor: it imports nothing else of the package.
"""
