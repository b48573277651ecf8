"""Accuracies of tasks: their trends in a sweep, and forecasts of the scores of a family's next model."""
