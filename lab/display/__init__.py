"""Display of a running sweep: counts, time left, live table or plain lines."""
