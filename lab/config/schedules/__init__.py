"""Settings that change with the progress of a trial."""
