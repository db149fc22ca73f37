"""Typed configuration of trials and experiments: plain data, without I/O."""
