"""suggestion."""
