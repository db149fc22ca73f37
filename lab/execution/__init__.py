"""Execution of a sweep: driver, Ray, prerequisites of trials, expected duration."""
