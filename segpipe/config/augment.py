"""What a training crop may undergo: the `train.augment` of a recipe. Part of the room `config`."""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, model_validator

from segpipe.config.strict import Fraction, Positive, Strict

# What every recipe has said since the first version. Whatever came later is part of a run's identity only where it is
# used, so that a new option leaves the digests of finished runs as they are.
_ALWAYS = ("crop", "scale", "flip", "colour")


class AugmentConfig(Strict):
    """Every change of a training crop; a fixed function of (seed, epoch, sample id). What is 0 is off.

    Large-scale jitter (Ghiasi et al. 2021, arXiv 2012.07177) is `scale: [0.1, 2.0]`. In the paper scale 1 makes the
    image fill the crop, which here is `input_scale`'s to say; it draws uniformly, and pads on the right and below.
    """

    crop: tuple[Positive, Positive] = Field(description="height, width of the training crop in pixels")
    scale: tuple[float, float] = Field(default=(0.5, 2.0), description="random scale around input_scale, log-uniform")
    flip: Fraction = Field(default=0.5, description="share of crops that are mirrored left to right")
    colour: Fraction = Field(default=0.4, description="strength of brightness, contrast and saturation jitter")
    vertical_flip: Fraction = Field(default=0.0, description="share turned upside down, for images that have no up")
    rotation: Annotated[float, Field(ge=0, le=180)] = Field(
        default=0.0, description="degrees; the angle is uniform between this and its opposite"
    )
    elastic: Annotated[float, Field(ge=0, le=100)] = Field(
        default=0.0, description="pixels; standard deviation of the U-Net paper's deformation, which used 10"
    )
    blur: Fraction = Field(default=0.0, description="share of crops that are blurred")
    blur_sigma: tuple[float, float] = Field(default=(0.1, 2.0), description="pixels; range of the blur, uniform")
    copy_paste: Fraction = Field(
        default=0.0, description="share of crops onto which some objects of another image are pasted; needs segments"
    )
    min_area: Positive = Field(default=1, description="pixels; an object of which the crop shows fewer is dropped")
    keypoint_pairs: tuple[tuple[int, int], ...] | None = Field(
        default=None,
        description="places of left and right keypoints, which a mirror image exchanges; [] where none has a side "
        "(COCO's person: [[1, 2], [3, 4], [5, 6], [7, 8], [9, 10], [11, 12], [13, 14], [15, 16]])",
    )

    @model_validator(mode="after")
    def ranges_are_ranges(self) -> Self:
        for name in ("scale", "blur_sigma"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise ValueError(f"{name} must be 0 < low <= high, got {low}, {high}")
        if not self.blur and self.blur_sigma != type(self).model_fields["blur_sigma"].default:
            raise ValueError("blur_sigma without blur does nothing: set blur or leave it out")
        return self

    @model_validator(mode="after")
    def pairs_are_pairs(self) -> Self:
        places = [place for pair in self.keypoint_pairs or () for place in pair]
        if len(set(places)) != len(places) or any(place < 0 for place in places):
            raise ValueError(f"keypoint_pairs must name each place once and count from 0, got {self.keypoint_pairs}")
        return self

    @property
    def identity(self) -> dict[str, Any]:
        """What decides a crop, as plain data: later options only where they differ from their default."""
        document = self.model_dump(mode="json")
        return {
            key: value
            for key, value in document.items()
            if key in _ALWAYS or getattr(self, key) != type(self).model_fields[key].default
        }
