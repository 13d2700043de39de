"""Refinement: what is made of a model's numbers before they are a prediction. Below `tasks/`; NumPy, SciPy, torch."""
