"""Recompute a written report, and compare it with its files."""
