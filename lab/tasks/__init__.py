"""Labelled tasks: rows of their sources, and checked examples for probes and fine-tuning."""
