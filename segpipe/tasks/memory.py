"""How much memory an image takes to be looked at, known before it is: what a served request is measured by.

What a pass holds, the architecture says (`models.held`), and what a CRF does, its room; this file knows what `views.py`
makes of them: views, windows, samples. No task itself.

Legend: K classes, H W size of the image in pixels, f by what it is resized before it enters the model.
"""

from __future__ import annotations

from segpipe import models
from segpipe.models.spec import Held
from segpipe.refine.crf import numbers_held
from segpipe.tasks.views import NUMBERS_AT_ONCE, exceeds
from segpipe.types import Inference, ModelBundle, Window


def numbers_of_image(bundle: ModelBundle, height: int, width: int, *, num_boxes: int = 0) -> float:
    """About how many numbers of 4 bytes an image of `height` x `width` takes at once, with `num_boxes` given: within
    two times of what was measured. What is answered is counted too, what was sent is not."""
    held, inference, num_classes = models.held(bundle.arch, bundle.options), bundle.inference, len(bundle.classes)
    factors = [bundle.input_scale * scale for scale in inference.scales]
    window = inference.window
    if window is not None and exceeds(window, bundle, (height, width)):
        looking = _by_windows(held, inference, window, num_classes, height, width, factors)
    else:
        looking = _whole(held, inference, num_classes, height * width, factors, num_boxes)
    if inference.crf is None:
        return looking
    # Of all its scores, and what they were joined from.
    return max(looking, 2 * num_classes * height * width + numbers_held(num_classes, height, width))


def _whole(
    held: Held, inference: Inference, num_classes: int, pixels: int, factors: list[float], num_boxes: int
) -> float:
    largest, is_resized = max(factors) ** 2, any(factor != 1 for factor in factors)
    entering = held.pixel + held.score * num_classes + held.box * num_boxes
    resized = num_classes + 2 * held.box * num_boxes if is_resized else 0
    return held.image + pixels * (largest * entering + resized + _added_up(inference) * num_classes)


def _by_windows(
    held: Held,
    inference: Inference,
    window: Window,
    num_classes: int,
    height: int,
    width: int,
    factors: list[float],
) -> float:
    one_pass = window.size[0] * window.size[1] * (held.pixel + held.score * num_classes)
    resized = sum(3 * height * width * factor**2 for factor in factors if factor != 1)
    # Of each view three strips, as high as a window.
    strips = [3 * num_classes * window.size[0] * width * factor for factor in factors]
    scores = num_classes * height * width
    band = min(scores, NUMBERS_AT_ONCE)
    if inference.samples:  # one view after the other, and what is known of all pixels by then
        return one_pass + resized + max(strips) + 2 * scores + 3 * band
    return one_pass + resized + sum(strips) * (1 + inference.mirror) + _added_up(inference) * band


def _added_up(inference: Inference) -> int:
    """Scores of each class that lie beside those of the view that was looked at last."""
    if inference.samples:
        return 5  # its probabilities, their distance from the mean, the mean, the squares, and what is added to these
    return 2 if len(inference.scales) > 1 or inference.mirror else 0
