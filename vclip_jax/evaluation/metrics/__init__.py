"""Figures from answers: classification, retrieval, intervals by bootstrap, their table, and what
the paper reports.

Everything here is NumPy on arrays: no model, no device.
"""
