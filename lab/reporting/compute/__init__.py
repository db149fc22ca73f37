"""Scores over compute, and compute multipliers."""
