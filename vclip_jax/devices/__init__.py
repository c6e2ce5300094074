"""Chips, cores and processes: the mesh and what lies where on it, several processes together, what
happens at SIGTERM.
"""
