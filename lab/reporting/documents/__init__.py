"""The files of a report: pages from templates, Markdown, CSV tables, the description in MLflow."""
