"""Readers of published datasets, a module each: the files' layout and the labels' meaning."""
