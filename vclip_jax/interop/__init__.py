"""Weights in and out: import from and export to other systems, without their libraries."""
