"""Scaling laws of a sweep: end points of its trials, fits, and the report's section on them."""
