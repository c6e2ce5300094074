"""Metrics of predictions: classification, retrieval, bootstrap intervals, their table, and the
paper's figures.

Everything here is NumPy on arrays, without models or devices.
"""
