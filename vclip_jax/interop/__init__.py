"""Weights of other systems into and out of ours, without their libraries."""
