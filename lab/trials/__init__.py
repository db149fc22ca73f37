"""Run one trial: assignment, training, scoring, fine-tuning, and the record."""
