"""How MLflow's server is told that a request was wrong. Apart, since it imports mlflow: seconds of CPU, which a process
that only answers (`fresh_answers.py`) need not pay.
"""

from __future__ import annotations

from mlflow.exceptions import MlflowException
from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE


class Refusal(MlflowException):
    """A wrong request: HTTP 400 with this sentence when served."""

    def __init__(self, message: str) -> None:
        self._sentence = message
        super().__init__(message, error_code=INVALID_PARAMETER_VALUE)

    @property
    def message(self) -> str:
        return self._sentence

    @message.setter
    def message(self, _: str) -> None:
        """Stays what it is: MLflow's server would put the whole request before the sentence, megabytes of an image."""
