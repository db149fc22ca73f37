"""Drills: inject a fault into a running sweep, and check that the same command finishes the sweep.

    python -m tests.drills [NAME ...]

A drill takes minutes and starts real processes, so pytest does not collect it.
"""
