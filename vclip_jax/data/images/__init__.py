"""Photographs: opened safely, decoded, fitted to a square, augmented."""
