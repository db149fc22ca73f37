"""Records of sweeps in MLflow: write them, keep them up to date, read them as data frames."""
