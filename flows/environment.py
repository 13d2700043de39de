"""Prefect's embedded default: its own server and SQLite file under segpipe's home. Call before prefect is imported."""

from __future__ import annotations

import os

from segpipe.stages import layout


def prepare() -> None:
    """Points Prefect at `<home>/prefect`, unless the user has chosen a server or a home; no telemetry."""
    if "PREFECT_API_URL" not in os.environ:
        home = os.environ.setdefault("PREFECT_HOME", f"{layout.local_home()}/prefect")
        # Prefect makes the folder itself but not its parent, and then its SQLite file cannot be opened.
        os.makedirs(home, exist_ok=True)
    defaults = {
        "PREFECT_SERVER_ANALYTICS_ENABLED": "false",
        "DO_NOT_TRACK": "1",
        "PREFECT_SERVER_EPHEMERAL_STARTUP_TIMEOUT_SECONDS": "120",
        "PREFECT_LOGGING_EXTRA_LOGGERS": "segpipe",
    }
    for name, value in defaults.items():
        os.environ.setdefault(name, value)
