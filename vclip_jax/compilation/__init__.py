"""Compilation ahead of time for accelerators that this machine lacks: memory, time and traffic of
a training step (`plan`), counted in the compiled program's text (`hlo`, `cost`).
"""
