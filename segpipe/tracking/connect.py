"""Which MLflow store is used, whether it is up, and every way that it can fail as one of two errors: it is down
(`UnreachableError`), or it is up and does not take what it is given (`RefusedError`).

A store is named by MLflow's own URIs: `http(s)://` for a server, `sqlite:///` for the embedded file, or any other
database URI. All of segpipe talks to it through `talking_to`, which also quietens MLflow (the command line promises
clean output) and keeps its timeouts short (its defaults wait for minutes).
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import sqlite3
import ssl
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import quote

from segpipe.errors import SegpipeError, UnreachableError

if TYPE_CHECKING:
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException

PROBE_SECONDS = 3.0
# Set only where the user has not. Uploads keep a long timeout of their own: weights are large.
DEFAULT_ENVIRONMENT = {
    "MLFLOW_DISABLE_TELEMETRY": "true",
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    "MLFLOW_PRINT_MODEL_URLS_ON_CREATION": "false",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
    "MLFLOW_LOGGING_LEVEL": "WARNING",
    "MLFLOW_UV_AUTO_DETECT": "false",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "10",
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "1",
    "MLFLOW_HTTP_REQUEST_BACKOFF_FACTOR": "1",
    "MLFLOW_ARTIFACT_UPLOAD_DOWNLOAD_TIMEOUT": "300",
    "GIT_PYTHON_REFRESH": "quiet",
}
# MLflow's codes for "not now" and "not you".
_UNAVAILABLE = {"TEMPORARILY_UNAVAILABLE", "DEADLINE_EXCEEDED", "REQUEST_LIMIT_EXCEEDED", "RESOURCE_EXHAUSTED"}
_LOCKED_OUT = {"UNAUTHENTICATED", "PERMISSION_DENIED"}
# How its codes begin for a request that no second try can mend; ENDPOINT_... and NOT_... are an older server's.
_IN_VAIN = ("INVALID_", "RESOURCE_ALREADY", "RESOURCE_DOES_NOT", "BAD_REQUEST", "ENDPOINT_NOT_FOUND", "NOT_")
_NETWORK_LIBRARIES = {"requests", "urllib3", "botocore"}
_DATABASE_FAULTS = {"OperationalError", "InterfaceError", "DatabaseError", "TimeoutError"}


@dataclass(frozen=True, kw_only=True, slots=True)
class RunRef:
    """Where one MLflow run is, and the key by which it is found again. Plain strings, so that it travels to worker
    processes. A run that MLflow could not be asked for has its key alone: `exists` is false.
    """

    tracking_uri: str
    experiment_id: str
    run_id: str
    key: str

    @property
    def exists(self) -> bool:
        return bool(self.run_id)


class RefusedError(SegpipeError):
    """MLflow is there and does not take this: something was deleted on its pages, a limit is passed, its release is
    another one, or its disk is full."""


def default_uri(home: str) -> str:
    """`$MLFLOW_TRACKING_URI` if it is set, else the embedded store `sqlite:///<home>/mlflow.db` (home: local path)."""
    return os.environ.get("MLFLOW_TRACKING_URI") or f"sqlite:///{os.path.abspath(home)}/mlflow.db"


def reachable(uri: str) -> None:
    """Returns within about 5 s if MLflow at `uri` answers, also where a server accepts and then hangs.

    Raises UnreachableError, whose text says how to start or mend it.
    """
    if is_server(uri):
        _probe_server(uri)
    elif path := sqlite_path(uri):
        _probe_sqlite(uri, path)
    else:
        with talking_to(uri) as client:
            client.search_experiments(max_results=1)


@contextlib.contextmanager
def talking_to(uri: str) -> Iterator[MlflowClient]:
    """A client of the store at `uri`. What goes wrong with the connection inside becomes UnreachableError, and what
    MLflow does not take becomes RefusedError."""
    for name, value in DEFAULT_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    try:
        if path := sqlite_path(uri):
            os.makedirs(os.path.dirname(path), exist_ok=True)
        from mlflow import MlflowClient

        yield MlflowClient(tracking_uri=uri)
    except SegpipeError:
        raise
    except Exception as error:
        # A traceback prints the cause, too, and MLflow's own words hold the address with its password.
        cause = error if without_password(uri) == uri else None
        if (reason := _connection_fault(error)) is not None:
            raise unreachable(uri, reason) from cause
        from mlflow.exceptions import MlflowException

        if isinstance(error, MlflowException):
            raise _refused(uri, error) from cause
        if isinstance(error, OSError):  # a full disk under an embedded store, a picture that is none
            raise RefusedError(
                f"MLflow at {without_password(uri)} could not take this: {_first_line(error)}"
            ) from cause
        raise


def unreachable(uri: str, reason: str) -> UnreachableError:
    """The error for a store that does not serve us, with what to do about it."""
    shown = without_password(uri)
    if is_server(uri):
        remedy = (
            "start it (mlflow server --host 127.0.0.1 --port 5000) or mend it, "
            "or unset MLFLOW_TRACKING_URI to use the embedded store"
        )
    elif sqlite_path(uri):
        remedy = "make its folder writable and see that no other program keeps the file locked, or move the file away"
    else:
        remedy = "start the database and check user, password and schema (mlflow db upgrade URI)"
    return UnreachableError(f"MLflow at {shown} cannot be used: {reason}; {remedy}. Then run the same command again")


def _refused(uri: str, error: MlflowException) -> RefusedError:
    from mlflow import __version__

    return RefusedError(
        f"MLflow at {without_password(uri)} refused what it was shown: {_first_line(error)} ({error.error_code}); "
        f"restore there what was deleted meanwhile, and see that its release is not older than {__version__}, the one "
        "that segpipe uses here"
    )


def is_server(uri: str) -> bool:
    return uri.startswith(("http://", "https://"))


def sqlite_path(uri: str) -> str | None:
    """The absolute file path of a `sqlite:///path` URI, else None."""
    if not uri.startswith("sqlite:///"):
        return None
    return os.path.abspath(uri.removeprefix("sqlite:///").split("?")[0])


def page(uri: str, *parts: str) -> str | None:
    """The address of a page of the server's web interface; None for stores without one."""
    return f"{without_login(uri).rstrip('/')}/{link(*parts)}" if is_server(uri) else None


def link(*parts: str) -> str:
    """What leads from one page of MLflow's web interface to another, whichever server shows the store, under whatever
    address."""
    # Without workflowType MLflow opens its pages for chat applications.
    return f"#/{'/'.join(quote(part, safe='') for part in parts)}?workflowType=machine_learning"


def without_password(uri: str) -> str:
    """`uri` as it may stand in logs and messages."""
    return re.sub(r"(://[^/@:]*):[^/@]*@", r"\1:***@", uri)


def without_login(uri: str) -> str:
    """`uri` as it may stand on a page that others see: without user and password."""
    return re.sub(r"://[^/]*@", "://", uri, count=1)


def metric_name(text: str) -> str:
    """`text` as a name that MLflow takes: other characters than letters, digits and `_-. :/` become `_`."""
    clean = re.sub(r"[^\w.\- :/]", "_", text)
    return "/".join(part for part in clean.split("/") if part not in ("", ".", "..")) or "_"


def _probe_server(uri: str) -> None:
    """Asks /health, which needs no login. Without MLflow's own client: that one cannot be given a timeout per call."""
    context = ssl.create_default_context(cafile=os.environ.get("MLFLOW_TRACKING_SERVER_CERT_PATH"))
    if os.environ.get("MLFLOW_TRACKING_INSECURE_TLS", "").lower() in ("true", "1"):
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    secure = context if uri.startswith("https://") else None
    try:
        url = f"{without_login(uri).rstrip('/')}/health"
        with urllib.request.urlopen(url, timeout=PROBE_SECONDS, context=secure) as answer:  # noqa: S310 - http(s) only
            answer.read(100)
    except urllib.error.HTTPError as error:
        # A proxy in front may ask for a login that MLflow's client will give.
        if error.code not in (401, 403):
            raise unreachable(uri, f"it answered HTTP {error.code} to /health") from None
    except OSError as error:
        reason = str(getattr(error, "reason", error)) or type(error).__name__
        raise unreachable(uri, f"no answer within {PROBE_SECONDS:.0f} s ({reason})") from None
    except (http.client.HTTPException, ValueError) as error:  # no port, no HTTP: neither is an OSError
        raise unreachable(uri, f"it is not the address of an HTTP server ({_first_line(error)})") from None


def _probe_sqlite(uri: str, path: str) -> None:
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with contextlib.closing(sqlite3.connect(path, timeout=PROBE_SECONDS, isolation_level=None)) as connection:
            connection.execute("BEGIN IMMEDIATE")
            connection.execute("ROLLBACK")
    except (OSError, sqlite3.Error) as error:
        raise unreachable(uri, str(error)) from None


def _connection_fault(error: BaseException) -> str | None:
    """One line on what is wrong with the connection, or None when the error is of another kind."""
    link: BaseException | None = error
    while link is not None:
        code, text = getattr(link, "error_code", None), _first_line(link)
        if code in _LOCKED_OUT:
            return f"it refused us ({text}); check MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD"
        if code is not None and code.startswith(_IN_VAIN):
            return None
        if "out-of-date database schema" in text:
            return f"it was written by another release of MLflow ({text}); run mlflow db upgrade on it"
        if code in _UNAVAILABLE or "API request to" in text or _status(link) >= 500 or _is_network_fault(link):
            return text
        link = link.__cause__ or link.__context__
    return None


def _is_network_fault(error: BaseException) -> bool:
    library = type(error).__module__.partition(".")[0]
    return (
        library in _NETWORK_LIBRARIES
        or (library in ("sqlalchemy", "sqlite3", "psycopg") and type(error).__name__ in _DATABASE_FAULTS)
        or isinstance(error, ConnectionError | TimeoutError | PermissionError)
    )


def _status(error: BaseException) -> int:
    """The HTTP status of an error that a server sent; 0 for any other."""
    return int(error.get_http_status_code()) if type(error).__name__ == "RestException" else 0  # type: ignore[attr-defined]


def _first_line(error: BaseException) -> str:
    text = without_password(str(error).strip().partition("\n")[0]) or type(error).__name__
    return text if len(text) <= 200 else f"{text[:197]}..."
