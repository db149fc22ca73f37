"""Settings for a budget of compute, each with its source, from own runs or from priors."""
