"""Reports: from the data frames of a sweep to statistics, figures, tables and pages."""
