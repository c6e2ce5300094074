"""Readers of published datasets, a module each: the files' layout and the labels' meaning.

They share `pairing`, which joins pictures and rows, and `words`, the phrases of captions.
"""
