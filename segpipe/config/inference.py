"""How a trained model looks at images: the `train.inference` of a recipe. Part of the room `config`."""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import Field, field_validator

from segpipe.config.crf import CrfConfig
from segpipe.config.strict import Positive, Strict

Scale = Annotated[float, Field(gt=0, le=4)]
# Keys of `inference` that no validation of a training looks through, so that no weight depends on them. The others do
# decide weights: which epoch is the best, and when patience ends, is what the validation split says through them.
AFTER_TRAINING = ("crf", "samples")


class WindowConfig(Strict):
    """Windows in which a model sees an image that is larger than one; a smaller image is seen as a whole."""

    size: tuple[Positive, Positive] = Field(
        description="height, width in pixels of what the model sees, after the image was resized"
    )
    overlap: Annotated[float, Field(ge=0, le=0.9)] = Field(
        default=0.5, description="least share of a window that the next one sees, too"
    )


class InferenceConfig(Strict):
    """How the trained model looks at an image, wherever it is used: in validation, on the board and when served.

    Every view costs one forward pass; the model's answer is the mean of what they say: of class probabilities
    (DeepLabv3, arXiv 1706.05587, section 4), or of the heatmaps of keypoints, which have a mirror image alone.
    With `window` a view costs one pass a window, and an image may have any size: what overlapping windows say is
    blended, each counting most in its middle (nnU-Net, Isensee et al., 2021, Nature Methods 18).

    A `crf` is left out in validation, as the DeepLab papers fit one after training: it costs an image of 360x480 some
    0.15 s of a core, as often as the model is validated, and to choose the best epoch it is not needed. So are
    `samples`: each view is seen that often, with dropout on as Bayesian SegNet has it (arXiv 1511.02680), which takes
    40; from 6 on the mean beats a pass without dropout. How much the passes differ is how unsure the model is.
    """

    scales: Annotated[tuple[Scale, ...], Field(min_length=1)] = Field(
        default=(1.0,), description="sizes at which the model sees an image, relative to input_scale"
    )
    mirror: bool = Field(default=False, description="whether it sees each one mirrored left to right, too")
    window: WindowConfig | None = Field(default=None, description="see large images window by window")
    crf: CrfConfig | None = Field(
        default=None, description="a dense CRF on what it says of each class, on the board and when served"
    )
    samples: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=0, description="passes with dropout on that each view gets, on the board and when served; 0: one, off"
    )

    @field_validator("samples")
    @classmethod
    def samples_differ(cls, samples: int) -> int:
        if samples == 1:
            raise ValueError("one sample tells nothing of how much they differ; 0 takes none, else take at least 2")
        return samples

    @property
    def in_training(self) -> InferenceConfig:
        """How validations look while a model is trained: without what comes `AFTER_TRAINING`."""
        return self.model_copy(update={key: type(self).model_fields[key].default for key in AFTER_TRAINING})

    @property
    def identity(self) -> dict[str, Any]:
        """What decides how a model looks, as plain data: what came later only where it is used."""
        later = ("window", "crf", "samples")
        return self.model_dump(mode="json", exclude={key for key in later if not getattr(self, key)})
