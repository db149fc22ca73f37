"""Forecasts of larger budgets, and how good they and the decisions by smaller budgets were."""
