"""Measurements of speed, which no test runs."""
