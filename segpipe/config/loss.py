"""What a training minimises over pixels: the `train.loss` of a recipe. Part of the room `config`.

One key a term, in place of which a number is its weight: `{cross_entropy: 1.0, dice: {weight: 0.5, smooth: 1.0}}`. What
each computes, and its source, is said in `losses/`; `tasks/pixel_losses.py` reads this.

A worker computes the loss of its crops, and the mean over workers is minimised. What is counted in each crop (all that
`cross_entropy`, `focal` and `bootstrapped_cross_entropy` look at, and the others with `per_image`) is the same for any
number of workers; without `per_image` an overlap is that of a worker's crops together.
"""

from __future__ import annotations

from typing import Annotated, Any, Self

from pydantic import Field, SerializerFunctionWrapHandler, model_serializer, model_validator

from segpipe.config.strict import Fraction, Positive, Strict

WEIGHS_CLASSES = ("cross_entropy", "focal")  # terms that know of `train.class_weights`
NotNegative = Annotated[float, Field(ge=0)]


class Term(Strict):
    weight: Annotated[float, Field(gt=0)] = Field(default=1.0, description="factor of the term in the sum")


class BootstrappedTerm(Term):
    threshold: Annotated[float, Field(gt=0, le=1)] | None = Field(
        default=None, description="pixels count whose true class has a lower probability"
    )
    top_k: Positive | None = Field(
        default=None, description="at least so many of the hardest pixels of each crop count"
    )

    @model_validator(mode="after")
    def something_is_left_out(self) -> Self:
        if self.threshold is None and self.top_k is None:
            raise ValueError("without threshold and top_k it is cross_entropy: set one of them, or name that")
        return self


class FocalTerm(Term):
    gamma: NotNegative = 2.0
    alpha: Fraction | None = Field(default=None, description="of two classes: weight of class 1; class 0 has the rest")


class OverlapTerm(Term):
    smooth: NotNegative = Field(default=0.0, description="added above and below; absent classes count where it is")
    per_image: bool = Field(default=False, description="one loss an image instead of one over the batch's pixels")


class TverskyTerm(OverlapTerm):
    alpha: NotNegative = Field(default=0.3, description="weight of false alarms")
    beta: NotNegative = Field(default=0.7, description="weight of misses")

    @model_validator(mode="after")
    def something_is_wrong(self) -> Self:
        if not self.alpha + self.beta:
            raise ValueError("alpha and beta are both 0, so that nothing is an error: set one of them")
        return self


class LovaszTerm(Term):
    per_image: bool = Field(default=False, description="one loss an image instead of one over the batch's pixels")


class LossConfig(Strict):
    """Terms of the loss, summed. Their order means nothing."""

    cross_entropy: Term | None = None
    bootstrapped_cross_entropy: BootstrappedTerm | None = None
    focal: FocalTerm | None = None
    dice: OverlapTerm | None = None
    jaccard: OverlapTerm | None = None
    tversky: TverskyTerm | None = None
    lovasz: LovaszTerm | None = None
    boundary: Term | None = None

    @model_validator(mode="before")
    @classmethod
    def numbers_are_weights(cls, document: Any) -> Any:
        if isinstance(document, str):
            raise ValueError(f"expected terms with their weights, such as {{{document}: 1.0}}")
        if not isinstance(document, dict):
            return document
        return {k: {"weight": term} if type(term) in (int, float) else term for k, term in document.items()}

    @model_validator(mode="after")
    def something_is_minimised(self) -> Self:
        if not self.terms:
            raise ValueError(
                f"without a term there is nothing to learn: name one of {', '.join(type(self).model_fields)}"
            )
        return self

    @model_serializer(mode="wrap")
    def terms_alone(self, write: SerializerFunctionWrapHandler) -> dict[str, Any]:
        """Without the terms that are not there: a further loss to choose from changes no recipe's digest."""
        written: dict[str, Any] = write(self)
        return {name: term for name, term in written.items() if term is not None}

    @property
    def terms(self) -> dict[str, Term]:
        """The terms that are there, by name."""
        found = ((name, getattr(self, name)) for name in type(self).model_fields)
        return {name: term for name, term in found if term is not None}

    @property
    def weighs_classes(self) -> bool:
        """Whether class weights would change anything."""
        return any(name in self.terms for name in WEIGHS_CLASSES)

    @property
    def two_classes(self) -> bool:
        """Whether a term says something that has a meaning for two classes alone."""
        return self.focal is not None and self.focal.alpha is not None


CROSS_ENTROPY = LossConfig(cross_entropy=Term())
