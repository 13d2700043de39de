"""A recipe: the one YAML file that tells a whole experiment, checked before anything is asked for.

Strict: an unknown key, a wrong type or a value out of range is an `InputError` that names the key's path (`strict.py`
says how). What a run is identified by is the digest of `RunConfig.identity`: the parts that change its result, a
trained model that looks at images in its way. `RunConfig.training` is the part of it that decides weights.
`Recipe.load` is the only reader of recipe files.
"""

from segpipe.config.augment import AugmentConfig
from segpipe.config.crf import CrfConfig, CrfGrid
from segpipe.config.entries import (
    ArchitectureConfig,
    BudgetConfig,
    DatasetConfig,
    EvaluateConfig,
    PromoteConfig,
    RehearsalConfig,
    ResourceConfig,
    expand_root,
)
from segpipe.config.inference import AFTER_TRAINING, InferenceConfig, WindowConfig
from segpipe.config.loss import LossConfig
from segpipe.config.recipe import Recipe
from segpipe.config.run import RunConfig, digest
from segpipe.config.strict import Strict, validate
from segpipe.config.train import WITHOUT_EFFECT, TrainConfig

__all__ = [
    "AFTER_TRAINING",
    "WITHOUT_EFFECT",
    "ArchitectureConfig",
    "AugmentConfig",
    "BudgetConfig",
    "CrfConfig",
    "CrfGrid",
    "DatasetConfig",
    "EvaluateConfig",
    "InferenceConfig",
    "LossConfig",
    "PromoteConfig",
    "Recipe",
    "RehearsalConfig",
    "ResourceConfig",
    "RunConfig",
    "Strict",
    "TrainConfig",
    "WindowConfig",
    "digest",
    "expand_root",
    "validate",
]
