"""A hyperparameter and scaling lab for pre-training encoders with replaced-token detection."""

__version__ = "0.2.0"
