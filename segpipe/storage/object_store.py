"""The same verbs on what fsspec reaches: retries with a budget, and S3's conditional put.

Settings of S3 come from the usual AWS_* environment (AWS_ENDPOINT_URL for one that is not Amazon's). An object store
has no temporary names: an interrupted multipart upload is invisible, and a lifecycle rule of the bucket aborts it.
"""

from __future__ import annotations

import errno
import functools
import os
import random
import time
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import Any, TypeVar

import fsspec

from segpipe.errors import InputError, SegpipeError, StorageFullError, UnreachableError
from segpipe.storage.budget import RetryBudget
from segpipe.storage.uris import scheme_of

T = TypeVar("T")

RETRY_SECONDS = 30.0  # the budget of one operation; then the store counts as down
CONNECT_SECONDS, STALL_SECONDS = 5, 12  # without a byte; a request that stalls is tried a second time in the budget
FIRST_PAUSE_SECONDS = 0.1
LONGEST_PAUSE_SECONDS = 4.0
PART_BYTES = 16 << 20  # of a file from twice this size on; ten parts go at a time
# "create-if-absent" is a promise of the store; only S3's is known and tested.
CONDITIONAL_PUT = ("s3", "s3a")
# Named, not imported: errors of s3fs's HTTP stack, which only exists where the `s3` extra is installed.
_TRANSIENT_NAMES = {
    "ClientConnectionError",
    "ClientPayloadError",
    "ConnectionError",
    "FlexibleChecksumError",
    "HTTPClientError",
    "IncompleteRead",
    "IncompleteReadError",
    "ResponseParserError",
    "ResponseStreamingError",
}
_TRANSIENT_STATUS = {408, 409, 425, 429, 500, 502, 503, 504}
_NO_CREDENTIALS = {"NoCredentialsError", "PartialCredentialsError"}
# Not the global generator: a retry must not change what training draws.
_jitter = random.SystemRandom()


def attempt(
    uri: str,
    operation: Callable[[Any, str], T],
    *,
    budget: RetryBudget | None = None,
    turn: AbstractContextManager[object] | None = None,
) -> T:
    """`operation(filesystem, path)`, repeated with growing jittered pauses while the error is a transient one.

    `budget` is what many operations have together, beside each one's own. `turn` is held while a try runs and never in
    a pause; waiting for it costs nothing of a budget, since then it is not the store that is slow. Raises InputError
    (missing, refused, no credentials), StorageFullError, UnreachableError when a budget is spent: with the object, the
    tries and the seconds.
    """
    shared = RetryBudget(float("inf")) if budget is None else budget
    tries, lost = 0, 0.0
    while True:
        with turn or nullcontext():
            tries, began = tries + 1, time.monotonic()
            try:
                filesystem = filesystem_of(uri)
                return operation(filesystem, str(filesystem._strip_protocol(uri)))
            except SegpipeError:
                raise
            except Exception as error:
                longest = min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2**tries)
                pause = _jitter.uniform(longest / 2, longest)
                now = time.monotonic()
                lost += now - began
                if not _transient(error) or lost + pause > RETRY_SECONDS:
                    raise _explain(error, uri, tries, lost) from error
                if not shared.spend(began, now + pause):
                    raise _explain(error, uri, tries, lost, f"; {shared}") from error
        shared.pause(pause)
        lost += time.monotonic() - now


def create(uri: str, data: bytes) -> bool:
    """A conditional put of `data`. False when the name is taken (perhaps by us: the reply may have been lost)."""
    _require_conditional_put(uri)
    return attempt(uri, lambda filesystem, path: _put(lambda: filesystem.pipe_file(path, data, mode="create")))


def create_from_file(uri: str, source: Path) -> bool:
    """As `create`, for a local file; large ones go in parts, and the condition holds for the step that ends them."""
    _require_conditional_put(uri)

    def put_file(filesystem: Any, path: str) -> bool:
        return _put(lambda: filesystem.put_file(str(source), path, mode="create", chunksize=PART_BYTES))

    return attempt(uri, put_file)


def stamp(filesystem: Any, path: str) -> str:
    """What the store says of an object's content: its size and ETag (or time of change)."""
    return stamp_in(filesystem.info(path))


def stamp_in(info: Mapping[str, Any]) -> str:
    """`stamp` from what a listing said of the object, too, where that has an ETag."""
    return f"{info['size']}/{info.get('ETag') or info.get('LastModified') or info.get('mtime')}"


def filesystem_of(uri: str) -> Any:
    """The fsspec file system of a URI. Raises InputError for an unknown scheme or a missing extra."""
    scheme = scheme_of(uri)
    if "@" in uri.partition("://")[2].partition("/")[0]:
        # Refused and not shown: it would stand in every log, report and receipt that names the place.
        raise InputError(
            f"a {scheme}:// URI holds a user name or password; expected {scheme}://bucket/prefix: put them into "
            "AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    try:
        return _open_filesystem(scheme, _endpoint(uri), os.getpid())
    except ImportError as error:
        raise InputError(f"{uri}: {scheme}:// needs another package ({error}); for S3 install segpipe[s3]") from error
    except ValueError as error:
        raise InputError(f"{uri}: {scheme}:// is not a known kind of storage; use a path or s3://bucket/...") from error


def _endpoint(uri: str) -> str:
    if scheme_of(uri) not in CONDITIONAL_PUT:
        return ""
    endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL") or ""
    if "@" in endpoint:
        # Refused and not shown: the HTTP library prints the address in its errors, and so into logs.
        raise InputError(
            "AWS_ENDPOINT_URL holds a user name or password; put them into AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY"
        )
    return endpoint


@functools.cache
def _open_filesystem(scheme: str, endpoint: str, process: int) -> Any:
    """One per process (a fork must not share sockets), without a listing cache: other writers are the normal case."""
    if scheme in ("http", "https"):
        from fsspec.implementations import http  # needs aiohttp, which comes with the `s3` extra

        timeout = http.aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=STALL_SECONDS)
        return fsspec.filesystem(scheme, client_kwargs={"timeout": timeout}, skip_instance_cache=True)
    if scheme not in CONDITIONAL_PUT:
        return fsspec.filesystem(scheme)
    # botocore repeats what it knows to be safe, at once; `attempt` owns the long pauses and the budget.
    settings = {
        "retries": {"mode": "standard", "total_max_attempts": 2},
        "connect_timeout": CONNECT_SECONDS,
        "read_timeout": STALL_SECONDS,
    }
    options: dict[str, Any] = {"endpoint_url": endpoint} if endpoint else {}
    filesystem = fsspec.filesystem(
        scheme, config_kwargs=settings, use_listings_cache=False, skip_instance_cache=True, **options
    )
    filesystem.retries = 1
    return filesystem


def _require_conditional_put(uri: str) -> None:
    if scheme_of(uri) not in CONDITIONAL_PUT:
        raise InputError(
            f"{uri}: segpipe commits by create-if-absent, which is known to be atomic on local disks and on s3:// "
            "only; choose one of these as the destination"
        )


def _put(put: Callable[[], Any]) -> bool:
    try:
        put()
    except OSError as error:
        if isinstance(error, FileExistsError) or status_of(error) == 412:
            return False
        raise
    return True


def _response(error: BaseException) -> dict[str, Any]:
    for candidate in (error, error.__cause__):
        response = getattr(candidate, "response", None)
        if isinstance(response, dict):
            return response
    return {}


def status_of(error: BaseException) -> int | None:
    """The HTTP status that a store answered with; None where it was another fault."""
    status = _response(error).get("ResponseMetadata", {}).get("HTTPStatusCode") or getattr(error, "status", None)
    return status if isinstance(status, int) else None


def _transient(error: BaseException) -> bool:
    if _storage_full(error):
        return False
    status = status_of(error)
    if status is not None:
        return status in _TRANSIENT_STATUS
    if isinstance(error, (TimeoutError, ConnectionError)):
        return True
    return any(kind.__name__ in _TRANSIENT_NAMES for kind in type(error).__mro__)


def _storage_full(error: BaseException) -> bool:
    code = str(_response(error).get("Error", {}).get("Code", ""))
    return status_of(error) == 507 or "StorageFull" in code or "QuotaExceeded" in code


def _explain(error: Exception, uri: str, tries: int, seconds: float, why: str = "") -> Exception:
    """The error to raise; the original itself when it is a fault of the program. `why` no further try was made."""
    store = _endpoint(uri) or f"{scheme_of(uri)}://"
    if isinstance(error, FileNotFoundError):
        return InputError(f"{uri}: no such object or bucket in {store}; check the URI and that the bucket exists")
    if isinstance(error, PermissionError) or status_of(error) in (401, 403):
        return InputError(f"{uri}: {store} refuses access ({error}); check AWS_ACCESS_KEY_ID and the bucket's policy")
    if type(error).__name__ in _NO_CREDENTIALS:
        return InputError(f"{uri}: no credentials for {store}; set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY")
    if _storage_full(error) or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return StorageFullError(f"{uri}: {store} has no room for this object ({error}); make room, then run again")
    if _transient(error):
        return UnreachableError(
            f"{uri}: {store} did not answer in {tries} tries over {seconds:.0f} s ({type(error).__name__}: {error})"
            f"{why}; check that it runs, the network, and AWS_ENDPOINT_URL"
        )
    if isinstance(error, OSError) or status_of(error):
        return SegpipeError(f"{uri}: {store} refused: {error}; see what its log says of this request")
    return error
