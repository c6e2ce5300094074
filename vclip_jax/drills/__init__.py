"""Drills: faults on purpose, and a count of how often nothing was lost (`vclip drills`)."""
