"""Report of several sweeps of one tracking store together."""
