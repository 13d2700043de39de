"""Post-processing of what a model says of one image, between `tasks/` and `predictions.py`. Knows no model.

Each file is one published procedure; import it by its name.
"""
