"""Costs of a trial that are known before it is trained, and the limits of a sweep to them."""
