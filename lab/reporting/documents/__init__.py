"""Documents of a report: templates rendered as HTML and Markdown."""
