"""Measurements of speed and memory, to be run by hand; no test runs them."""
