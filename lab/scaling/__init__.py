"""Scaling laws: fits, intervals, optima, forecasts and decisions, as functions of arrays.

Nothing here reads files, runs or settings. Losses are positive and smaller is better.
"""
