"""Write the files of a report: HTML pages, Markdown, CSV tables and the description in MLflow."""
