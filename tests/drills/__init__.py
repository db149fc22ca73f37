"""Drills: commit a fault in the middle of a sweep, and see whether the same command finishes it.

    python -m tests.drills [NAME ...]

They take minutes each and run real processes, so pytest does not collect them.
"""
