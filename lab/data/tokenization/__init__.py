"""Training of tokenizers, and measures of how well their vocabularies fit a text."""
