"""Weights and training state to and from a URI: safetensors and strict JSON, never pickle.

A run's folder holds

    checkpoints/step-00000120/weights.safetensors    what predicts (the averaged weights when there is an EMA)
                              training.safetensors   what only a resume needs: optimiser, raw weights beside an EMA
                              state.json             position, history, best so far, hashes of the two and of
                                                     itself; written last
    model/weights.safetensors, model/model.json      the bundle of the best step, once training has ended

A checkpoint without a valid `state.json`, or whose bytes do not match it, does not exist: resume takes the newest valid
one. An old one is deleted only after a newer one was read back. A training that has ended needs its best one, too: when
that is damaged the run starts over, as it does when all of them are (`train/session.py` says which case it is).

    steps.py     the checkpoints of a run
    bundle.py    the bundle of a model
    tensors.py   tensors <-> bytes
"""

from segpipe.checkpoint.bundle import BUNDLE, load_bundle, load_model, model_uri, save_model, verify_bundle
from segpipe.checkpoint.steps import (
    STATE,
    TRAINING,
    Checkpoint,
    drop,
    latest,
    load,
    newest_state,
    save,
    start_over,
)
from segpipe.checkpoint.tensors import WEIGHTS

__all__ = [
    "BUNDLE",
    "STATE",
    "TRAINING",
    "WEIGHTS",
    "Checkpoint",
    "drop",
    "latest",
    "load",
    "load_bundle",
    "load_model",
    "model_uri",
    "newest_state",
    "save",
    "save_model",
    "start_over",
    "verify_bundle",
]
