"""Scores of a trial's encoder and discriminator on held-out text and labelled tasks."""
