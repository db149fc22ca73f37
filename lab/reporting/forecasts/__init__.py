"""Forecasts of a sweep's designs at larger budgets: made, stored and scored."""
