"""Which training a run is: its config with everything written out that decides the result.

Between `config`, which knows no architecture, and the stages, which name folders and MLflow runs by `RunConfig.digest`.
"""

from __future__ import annotations

from segpipe import models
from segpipe.config import RunConfig


def resolve(run: RunConfig) -> RunConfig:
    """The same run with every option of its architecture, and with what its `pretrained` is: a name or a file's hash.

    Done once for a run and kept: a weights file that is replaced while a night goes on must not rename the run. Raises
    InputError on an unknown architecture, option or weights name, and on a weights file that cannot be read.
    """
    written_out: dict[str, object] = {"options": models.complete(run.arch, run.options)}
    if run.pretrained is not None and run.pretrained_id is None:
        written_out["pretrained_id"] = models.weights_id(run.arch, run.options, run.pretrained)
    return run.model_copy(update=written_out)
