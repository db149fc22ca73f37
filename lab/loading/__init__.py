"""From a YAML file to a checked experiment, or to one line that says what is wrong."""
