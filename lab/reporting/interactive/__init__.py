"""Interactive figures of a report's page, drawn by Plotly in the reader's browser."""
