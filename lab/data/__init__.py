"""Text sources, tokenizers, windows, and batches that are a function of the step."""
