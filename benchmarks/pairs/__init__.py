"""Makes the minimal pairs of the package from held-out sentences of the Brown corpus."""
