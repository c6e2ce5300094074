"""Files: untrusted ones read within limits of size, depth, memory and time, our own written whole.

`packaged` finds and checks the models that come with the package; `errors` puts an error on one
line. The ground floor: this room imports nothing else of the package.
"""
