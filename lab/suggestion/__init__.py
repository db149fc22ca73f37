"""Survey of a text and its labelled rows, and the search space that `lab.init` recommends."""
