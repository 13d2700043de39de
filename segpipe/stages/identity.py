"""Which run it is: its config with everything written out that decides the result.

Between `config`, which knows no architecture, and the stages, which name folders and MLflow runs by `RunConfig.digest`.
What enters which name:

- a run (folder, MLflow run, `config_digest` of its bundle and reports): all that decides its model, which is its
  training and how the model looks at images;
- the training that it takes its weights from (`RunConfig.training`, a run itself): the same without what comes after
  training (`config.AFTER_TRAINING`, a CRF). Scales, mirror images and windows are in it: a validation looks through
  them, and chooses the epoch by what it sees;
- an evaluation: the hash of the weights' file, whose header names all that decides a prediction, CRF included; split,
  batch size, pictures. Its champion and its registered version go by that hash, too;
- each with the dataset version and the code.
"""

from __future__ import annotations

from typing import Any

from segpipe import models
from segpipe.config import RunConfig, TrainConfig
from segpipe.errors import InputError
from segpipe.types import Task

PAIRS, AUX = "keypoint_pairs", "aux_weight"


def resolve(run: RunConfig) -> RunConfig:
    """The same run with every option of its architecture, and with what its `pretrained` is: a name or a file's hash.

    A night does so once and keeps its runs: to look for auxiliary heads takes a while, and a weights file that is
    replaced while it goes on must not rename a run. A resolved run stays as it is, at no cost. Raises
    InputError on an unknown architecture, option or weights name, and on a weights file that cannot be read.
    """
    if run.members:
        members = tuple(map(resolve, run.members))
        described = [{"arch": member.arch, "options": member.options} for member in members]
        return run.model_copy(update={"members": members, "options": {"members": described}})
    written_out: dict[str, object] = {"options": options_of(run)}
    if run.task_kind is Task.SEMANTIC and AUX in run.common:
        # Nobody need ask again: what is left of it is meant for this run.
        written_out |= {"train": _heard(run), "common": tuple(key for key in run.common if key != AUX)}
    for key, other in (("start_from", run.start_from), ("trained_as", run.trained_as)):
        if other is not None:
            written_out[key] = resolve(other)
    if run.pretrained is not None and run.pretrained_id is None:
        written_out["pretrained_id"] = models.weights_id(run.arch, run.options, run.pretrained)
    return run.model_copy(update=written_out)


def _heard(run: RunConfig) -> TrainConfig:
    """`train` without the weight of auxiliary heads where it is said for other architectures and this one has none: to
    change it is no other training."""
    if models.aux_heads(run.arch, run.options):
        return run.train
    return run.train.model_copy(update={AUX: run.train.default(AUX)})


def options_of(run: RunConfig) -> dict[str, Any]:
    """Every option of the run's architecture: as the recipe says, else its default.

    Pairs of keypoints are said once, in `train.augment`, for its mirror images as for those that the model looks at.
    Raises InputError on an unknown architecture or option, on other pairs among the options, and on options that ask
    for pretrained weights where there are none.
    """
    options = models.complete(run.arch, run.options)
    if run.start_from is None:
        models.require_weights(run.arch, options, run.pretrained)
    if PAIRS in options:
        pairs = [list(pair) for pair in run.train.augment.keypoint_pairs or ()]
        if run.options.get(PAIRS, pairs) != pairs:
            raise InputError(
                f"{run.arch}: option {PAIRS} is {run.options[PAIRS]}, and train.augment.{PAIRS} {pairs}; leave the "
                "option out: it follows"
            )
        options[PAIRS] = pairs
    return options
