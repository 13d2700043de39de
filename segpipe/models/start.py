"""A fresh model that starts from the weights of a trained one, of the same architecture or of a relative.

FCN-16s starts from FCN-32s so (Long et al. 2015, section 4.2), a model for large crops from one for small crops. Used
by `models/__init__.py` alone. Unlike weights from outside (`pretrained.py`) these are known to be of the same classes.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping

from torch import Tensor, nn

from segpipe.errors import InputError
from segpipe.models.pretrained import some

_log = logging.getLogger(__name__)


def fitting(ours: Mapping[str, Tensor], theirs: Mapping[str, Tensor], *, start: str) -> list[str]:
    """The keys that both have in one shape. Raises InputError unless all of the backbone is among them."""
    found = [key for key, tensor in ours.items() if key in theirs and theirs[key].shape == tensor.shape]
    there = set(found)
    # A norm that was frozen counted no batches; torch starts the count at 0.
    lacking = [
        key
        for key in ours
        if key.startswith("backbone.") and key not in there and not key.endswith("num_batches_tracked")
    ]
    if lacking:
        raise InputError(
            f"start_from {start!r}: its model lacks {len(lacking)} tensors of this one's backbone, or has them in "
            f"another shape ({some(lacking)}); start from an architecture with the same backbone"
        )
    return found


def start_from(model: nn.Module, theirs: Mapping[str, Tensor], *, start: str) -> None:
    """Loads what fits, in place, and says what does not. Raises as `fitting`."""
    ours = model.state_dict()
    found = fitting(ours, theirs, start=start)
    model.load_state_dict({key: theirs[key] for key in found}, strict=False)
    _log.info("start_from %s: loaded %d of %d tensors", start, len(found), len(ours))
    for what, keys in (("begins as made", set(ours) - set(found)), ("is left behind", set(theirs) - set(found))):
        if keys:
            _log.warning("start_from %s: what %s: %s", start, what, some(sorted(keys)))
