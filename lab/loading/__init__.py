"""Load a search space or a task from YAML, and report errors in one line."""
