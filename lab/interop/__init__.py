"""Weights in and out of the lab: transformers models, MLflow models and initial weights."""
