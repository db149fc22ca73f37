"""Batched fits of models that are linear in all but a few parameters."""
