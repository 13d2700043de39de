"""Several evaluations of one model on one look at each image, each with another DenseCRF. Beside `evaluate.py`.

`stages/tune_crf.py` chooses among them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from torch import Tensor

from segpipe.data.batch import Batch
from segpipe.evaluate import Share, one_thread, open_share
from segpipe.metrics import first_maximum
from segpipe.predictions import LabelMap
from segpipe.tasks import TaskOps
from segpipe.tasks.views import Looked, label_maps, probabilities, refined
from segpipe.types import CrfSettings


def count_crfs(
    share: Share, settings: Sequence[CrfSettings], *, threads: int, on_progress: Callable[[int, int], None]
) -> tuple[TaskOps, list[Any]]:
    """The task and its meters: without a CRF, then with each of `settings`, on one look of the model at each image.

    Each meter is that of an evaluation with this CRF, to the last bit: fields work side by side in `threads`, each in
    one alone. For models of task semantic. `on_progress(done, total)` counts batches.
    """
    model, bundle, ops, batches = open_share(share)
    meters = [ops.meter() for _ in range(1 + len(settings))]

    @torch.inference_mode()
    def refine(batch: Batch, given_NKHW: Tensor, crf: CrfSettings | None) -> list[LabelMap]:
        return label_maps(Looked(first_maximum(given_NKHW if crf is None else refined(batch, given_NKHW, crf))))

    # The number of threads of an operation is one of the thread that calls it.
    with one_thread(), ThreadPoolExecutor(threads, initializer=torch.set_num_threads, initargs=(1,)) as pool:
        for done, batch in enumerate(batches):
            on_progress(done, len(batches))
            with torch.inference_mode():
                given_NKHW = probabilities(model, batch, bundle)
            waiting = [pool.submit(refine, batch, given_NKHW, crf) for crf in (None, *settings)]
            for meter, found in zip(meters, waiting, strict=True):
                ops.measure(meter, found.result(), batch)
        on_progress(len(batches), len(batches))
    return ops, meters
