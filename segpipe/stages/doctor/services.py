"""Checks of what answers over a network: Ray, MLflow, Prefect, and the clock that they must share."""

from __future__ import annotations

import os
import time
import urllib.request
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from http.client import HTTPException
from pathlib import Path
from urllib.parse import urlsplit

from segpipe import tracking
from segpipe.cores import ray_address
from segpipe.errors import SegpipeError, UnreachableError
from segpipe.stages import layout
from segpipe.stages.doctor.finding import Check

PROBE_SECONDS = 3.0
MOST_SKEW_SECONDS = 60
LOOPBACK = {"localhost", "127.0.0.1", "::1", "local", "auto", ""}


def check_ray() -> Iterator[Check]:
    """Connects to `$RAY_ADDRESS`, or starts a Ray of its own, as the stages do."""
    address = ray_address()
    shown, expected = "a Ray of its own" if address == "local" else address, "answers"
    try:
        from segpipe.train import on_ray  # inside: without ray installed the other checks still run

        on_ray.connect()
    except ImportError as error:
        fix = "rm -rf .venv, then make install (the locked packages)"
        yield Check(name="ray", status="fail", found=f"cannot be imported: {error}", expected="ray and torch", fix=fix)
    except SegpipeError as error:
        own = "mend disk, memory or shared memory as said here; Ray's own words are in /tmp/ray/session_latest/logs"
        fix = own if address == "local" else f"ray status --address {address}, or unset RAY_ADDRESS"
        yield Check(name="ray", status="fail", found=str(error), expected=expected, fix=fix, is_service=True)
    else:
        yield Check(name="ray", status="ok", found=shown, expected=expected)
    mode = os.environ.get("RAY_AUTH_MODE", "")
    if mode != "token" and _host(address) not in LOOPBACK:
        fix = "export RAY_AUTH_MODE=token and the same RAY_AUTH_TOKEN on every node"
        found = f"RAY_AUTH_MODE={mode or '(unset)'} for {_host(address)}"
        yield Check(name="ray authentication", status="warn", found=found, expected="token", fix=fix)


def check_mlflow() -> Iterator[Check]:
    uri = tracking.default_uri(layout.local_home())
    try:
        tracking.reachable(uri)
    except UnreachableError as error:
        fix = "mlflow server --host 127.0.0.1 --port 5000, or unset MLFLOW_TRACKING_URI"
        yield Check(name="mlflow", status="fail", found=str(error), expected="answers", fix=fix, is_service=True)
    else:
        yield Check(name="mlflow", status="ok", found=tracking.without_login(uri), expected="answers")
    yield from _plain_http("mlflow", uri)


def check_prefect() -> Iterator[Check]:
    url = os.environ.get("PREFECT_API_URL", "")
    if not url:
        yield Check(name="prefect", status="ok", found="embedded (PREFECT_API_URL is not set)", expected="answers")
        return
    try:
        _get(f"{url.rstrip('/')}/health")
    except (OSError, ValueError, HTTPException) as error:
        found = f"{tracking.without_login(url)}: {error}"
        fix = "prefect server start --host 127.0.0.1, or unset PREFECT_API_URL"
        yield Check(name="prefect", status="fail", found=found, expected="answers", fix=fix, is_service=True)
    else:
        yield Check(name="prefect", status="ok", found=tracking.without_login(url), expected="answers")
    yield from _plain_http("prefect", url)


def check_clock() -> Iterator[Check]:
    """Against our own files, and against a server where one is configured: schedules and tokens need the hour."""
    fix = "set the clock, for example: timedatectl set-ntp true"
    written, now = Path(__file__).stat().st_mtime, time.time()
    skew = next((s for s in map(_skew, _http_servers()) if s is not None), None)
    if now < written:
        found = f"{written - now:.0f} s before segpipe's own files were written"
        yield Check(name="clock", status="fail", found=found, expected="the present", fix=fix)
    elif skew is not None and abs(skew) > MOST_SKEW_SECONDS:
        expected = f"within {MOST_SKEW_SECONDS} s of the servers"
        yield Check(name="clock", status="warn", found=f"{skew:+.0f} s off a server", expected=expected, fix=fix)
    else:
        found = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(now))
        yield Check(name="clock", status="ok", found=found, expected="the present")


def _plain_http(name: str, url: str) -> Iterator[Check]:
    if url.startswith("http://") and _host(url) not in LOOPBACK:
        fix = "put TLS in front of the server and use https://, or reach it through an SSH tunnel"
        found = f"http to {_host(url)}: anyone on the way can read and change it"
        yield Check(name=f"{name} connection", status="warn", found=found, expected="https", fix=fix)


def _http_servers() -> list[str]:
    urls = (os.environ.get("PREFECT_API_URL", ""), tracking.default_uri(layout.local_home()))
    return [f"{url.rstrip('/')}/health" for url in urls if url.startswith(("http://", "https://"))]


def _skew(url: str) -> float | None:
    """Seconds by which our clock is ahead of a server's; None when it does not say."""
    try:
        return time.time() - parsedate_to_datetime(_get(url)).timestamp()
    except (OSError, ValueError, HTTPException):
        return None


def _get(url: str) -> str:
    """Asks a health page and returns the server's date. Raises OSError when it does not answer, ValueError or
    HTTPException when this is no address of an HTTP server."""
    if not url.startswith(("http://", "https://")):
        raise ValueError(f"{url!r} is no http address")
    with urllib.request.urlopen(url, timeout=PROBE_SECONDS) as answer:  # noqa: S310 - http(s) only, as just checked
        answer.read(100)
        return str(answer.headers.get("Date", ""))


def _host(address: str) -> str:
    try:
        return urlsplit(address if "://" in address else f"//{address}").hostname or ""
    except ValueError:  # no address at all: another check says so
        return ""
