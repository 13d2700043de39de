"""Refinement: what is made of a model's numbers before they are a prediction. Below `tasks/`; knows no model.

Each file is one published procedure; import it by its name.
"""
