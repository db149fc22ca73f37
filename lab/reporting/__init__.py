"""Reports: from the data frames of a sweep to statistics, figures, tables and pages."""

import os

# Importing matplotlib fails if this variable names a backend that is not installed, such as that of
# a Jupyter kernel. Figures are written as SVG only.
os.environ["MPLBACKEND"] = "svg"
