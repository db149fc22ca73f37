"""Encodings of text files: their guess, and conversion to UTF-8."""
