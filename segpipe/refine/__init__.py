"""Refinement: what is made of a model's numbers before they are a prediction. Below `tasks/`; knows no model.

Each file is one published procedure; `dense_crf`, which other programs use too, has its name here.
"""

from segpipe.refine.crf import dense_crf, dense_crf_batch

__all__ = ["dense_crf", "dense_crf_batch"]
