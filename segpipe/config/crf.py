"""DenseCRF in recipes, and the grid of its parameters that `segpipe tune-crf` searches. Part of the room `config`."""

from __future__ import annotations

import itertools
from typing import Annotated

from pydantic import Field

from segpipe.config.strict import Positive, Strict
from segpipe.types import CrfSettings

Deviation = Annotated[float, Field(gt=0, le=10_000)]
Weight = Annotated[float, Field(ge=0, le=1_000)]
DEFAULT = CrfSettings()


class CrfConfig(Strict):
    """A dense conditional random field after the model (Kraehenbuehl, Koltun 2011, arXiv 1210.5644).

    The defaults are those of pydensecrf's README; which are right depends on the model and its data, and may be none:
    `segpipe tune-crf` searches on a validation split.
    """

    iterations: Positive = Field(default=DEFAULT.iterations, description="steps of mean field inference")
    gaussian: tuple[Deviation, Weight] = Field(
        default=DEFAULT.gaussian, description="kernel over positions: standard deviation in pixels, weight"
    )
    bilateral: tuple[Deviation, Deviation, Weight] = Field(
        default=DEFAULT.bilateral,
        description="kernel over positions and colours: standard deviations in pixels and in 0..255, weight",
    )

    @property
    def settings(self) -> CrfSettings:
        return CrfSettings(iterations=self.iterations, gaussian=self.gaussian, bilateral=self.bilateral)


class CrfGrid(Strict):
    """What `segpipe tune-crf` tries: every combination of the three parameters of the kernel over colours.

    Those are what the DeepLab papers search on 100 images of the validation split, with the kernel over positions as it
    is here and 10 iterations: first weights 5 to 10, deviations 50 to 100 pixels and 3 to 10 in colour (arXiv
    1412.7062), or 3 to 6, 30 to 100 and 3 to 6 (arXiv 1606.00915). The coarser grid here also tries weak fields.
    """

    iterations: Positive = DEFAULT.iterations
    gaussian: tuple[Deviation, Weight] = DEFAULT.gaussian
    sxy: Annotated[tuple[Deviation, ...], Field(min_length=1)] = (30.0, 80.0)
    srgb: Annotated[tuple[Deviation, ...], Field(min_length=1)] = (5.0, 13.0)
    weight: Annotated[tuple[Weight, ...], Field(min_length=1)] = (1.0, 4.0, 10.0)

    @property
    def settings(self) -> list[CrfSettings]:
        """Every combination, each once."""
        values = dict.fromkeys(itertools.product(self.sxy, self.srgb, self.weight))
        return [CrfSettings(iterations=self.iterations, gaussian=self.gaussian, bilateral=value) for value in values]
