"""Pareto front of the compared settings: the score against a cost that is known exactly."""
