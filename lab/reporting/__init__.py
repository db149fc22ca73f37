"""Reports: from the data frames of a sweep to statistics, figures, tables and pages."""

import os

# Read when matplotlib is imported, which fails if the variable names a backend that is not installed,
# such as that of a Jupyter kernel. Figures are written as SVG only.
os.environ["MPLBACKEND"] = "svg"
