"""How an architecture is trained: the `train` of a recipe. Part of the room `config`."""

from __future__ import annotations

from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from segpipe.config.augment import AugmentConfig
from segpipe.config.inference import InferenceConfig, Scale
from segpipe.config.loss import CROSS_ENTROPY, LossConfig
from segpipe.config.strict import Fraction, Positive, Strict

# Keys of `train` that reach no weight: batches come in the same order from any number of threads (data/loader.py), and
# a checkpoint only reads (train/session.py). They may differ between two attempts at the same run.
WITHOUT_EFFECT = ("checkpoint_every", "loader_threads")
# Keys of `train` that came later: part of a run's identity only where they are used, so that a new one leaves the
# digests of finished runs as they are.
_LATER = ("loss", "sigmoid")


class TrainConfig(Strict):
    """One training run. Every key may be overridden per architecture."""

    seed: Annotated[int, Field(ge=0)] = 0
    epochs: Positive
    batch_size: Positive = Field(description="images in one optimiser step's micro-batch, over all workers")
    accumulate: Positive = Field(default=1, description="micro-batches summed before one optimiser step")
    augment: AugmentConfig
    input_scale: Scale = Field(
        default=1.0, description="images enter the model resized by this factor, in training and in prediction"
    )
    inference: InferenceConfig = InferenceConfig()
    optimizer: Literal["sgd", "adamw"] = "adamw"
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    backbone_learning_rate_factor: Annotated[float, Field(gt=0)] = Field(
        default=1.0, description="learning rate of the backbone relative to the rest; lower it for pretrained weights"
    )
    momentum: Fraction = 0.9
    weight_decay: Annotated[float, Field(ge=0)] = 1e-4
    schedule: Literal["poly", "cosine", "constant"] = "poly"
    warmup_steps: Annotated[int, Field(ge=0)] = 0
    clip_norm: Annotated[float, Field(gt=0)] | None = None
    precision: Literal["float32", "bfloat16"] = "float32"
    channels_last: bool = True
    compile: bool = False
    ema_decay: Annotated[float, Field(ge=0, lt=1)] | None = None
    loss: LossConfig = Field(
        default=CROSS_ENTROPY, description="terms of a loss of pixels with their weights, such as {dice: 1.0}"
    )
    sigmoid: bool = Field(
        default=False, description="one output for two classes, the logit of the second one, instead of one for each"
    )
    class_weights: Literal["none", "enet", "median_frequency"] = "none"
    class_weight_power: Fraction = Field(
        default=1.0, description="class weights are raised to it; 0.5 makes rare classes spread less over common ones"
    )
    aux_weight: Annotated[float, Field(ge=0)] = Field(
        default=0.4, description="factor of the loss of auxiliary heads, where the architecture has any"
    )
    evaluate_every: Positive = Field(default=1, description="epochs between evaluations on the validation split")
    patience: Positive | None = Field(default=None, description="evaluations without a better value before stopping")
    checkpoint_every: Positive | None = Field(default=None, description="optimiser steps between checkpoints")
    train_split: str = "train"
    validation_split: str = "val"
    loader_threads: Positive = 2

    @model_validator(mode="after")
    def nothing_is_ignored(self) -> Self:
        """Compares with the defaults: a recipe written out in full (`Recipe.to_yaml`) has every key set."""
        if self.optimizer != "sgd" and self.momentum != self.default("momentum"):
            raise ValueError(f"momentum is sgd's, {self.optimizer} would ignore it: leave it out")
        if self.class_weights == "none" and self.class_weight_power != self.default("class_weight_power"):
            raise ValueError("class_weight_power without class weights does nothing: set class_weights or leave it out")
        if self.class_weights != "none" and not self.loss.weighs_classes:
            raise ValueError(
                f"class_weights is {self.class_weights}, and of the loss {', '.join(self.loss.terms)} no term knows of "
                "them (cross_entropy and focal do): leave it out"
            )
        if self.class_weights != "none" and self.loss.two_classes:
            raise ValueError("class_weights and the alpha of focal both weigh classes: leave one of them out")
        return self

    @classmethod
    def default(cls, key: str) -> Any:
        return cls.model_fields[key].default

    def steps_per_epoch(self, samples: int) -> int:
        """Optimiser steps of an epoch of so many samples; 0 where they do not fill one."""
        return samples // self.batch_size // self.accumulate

    def steps(self, samples: int) -> int:
        """Those of a whole training."""
        return self.steps_per_epoch(samples) * self.epochs

    @property
    def told(self) -> tuple[str, ...]:
        """Keys that have another value than their default, and those that have none."""
        return tuple(key for key in type(self).model_fields if getattr(self, key) != self.default(key))

    @property
    def identity(self) -> dict[str, Any]:
        """What decides the weights and how they look at images, as plain data: without keys that have no effect, and
        options that are off."""
        unused = {key for key in _LATER if getattr(self, key) == self.default(key)}
        document = self.model_dump(mode="json", exclude=unused.union(WITHOUT_EFFECT))
        return {**document, "augment": self.augment.identity, "inference": self.inference.identity}
