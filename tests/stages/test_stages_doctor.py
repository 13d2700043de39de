"""segpipe/stages/doctor: each check on a healthy and on a broken surrounding."""

import threading
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from segpipe.errors import UnreachableError
from segpipe.stages import doctor
from segpipe.stages.doctor import machine, services
from segpipe.stages.doctor.finding import GIB, Check, amount
from segpipe.train import on_ray

NOBODY = "http://127.0.0.1:9"


def one(checks: Iterator[Check]) -> Check:
    (check,) = checks
    assert (check.status == "ok") == (check.fix == ""), "a fault comes with its fix, health without"
    return check


@pytest.fixture
def serve() -> Iterator[Callable[..., str]]:
    """Starts servers that answer every GET: serve(status=..., ahead=...) -> address."""
    servers: list[HTTPServer] = []

    def start(*, status: int = 200, ahead: float = 0.0) -> str:
        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                self.send_response_only(status)
                self.send_header("Date", formatdate(time.time() + ahead, usegmt=True))
                self.end_headers()
                self.wfile.write(b"true")

            def log_message(self, *args: object) -> None:
                """Nothing on standard error."""

        server = HTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=server.serve_forever, args=(0.01,)).start()
        servers.append(server)
        return f"http://127.0.0.1:{server.server_port}"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


# --- this machine -----------------------------------------------------------------------------------------------------


def test_this_python_will_do_and_an_old_one_will_not(monkeypatch: pytest.MonkeyPatch) -> None:
    assert one(machine.check_python()).status == "ok"
    monkeypatch.setattr(machine, "OLDEST_PYTHON", (9, 0))
    assert one(machine.check_python()).expected == "at least 9.0"


@pytest.mark.parametrize(
    ("version", "bounds", "within"),
    [
        ("0.150.0", "<0.151,>=0.139", True),
        ("0.151", "<0.151,>=0.139", False),
        ("0.151.1", "<0.151,>=0.139", False),
        ("0.138.9", "<0.151,>=0.139", False),
        ("0.139", "<0.151,>=0.139", True),
        ("3.8.8", ">=3.8.8,<3.9", True),
        ("3.10", ">=3.8.8,<3.9", False),
        ("2.15.0+cpu", ">=2.11", True),
        ("25", ">=25.0", True),
        ("26.0rc1", ">=25", True),
        ("1.0", "", True),
    ],
)
def test_versions_are_compared_as_numbers(version: str, bounds: str, within: bool) -> None:
    assert machine._within(version, bounds) is within


def test_a_bound_that_doctor_cannot_read_is_said_not_skipped() -> None:
    with pytest.raises(ValueError, match=r"'~=3.0' in pyproject.toml"):
        machine._within("3.1", "~=3.0")


def test_the_installed_packages_are_those_that_pyproject_declares() -> None:
    assert [check.status for check in machine.check_packages()] == ["ok"]


def test_each_wrong_package_is_named_with_the_command_that_mends_it() -> None:
    wanted = ["pytest<2,>=1", "no-such-thing>=3", "numpy>=1", "boto3>=99; extra == 's3'", "ray[train]>=1"]
    old, missing = machine.check_packages(wanted)
    assert (old.name, old.expected, old.fix) == ("package pytest", "<2,>=1", "pip install 'pytest<2,>=1'")
    assert (missing.name, missing.found) == ("package no-such-thing", "not installed")
    assert {old.status, missing.status} == {"fail"}


def test_the_home_is_tried_and_left_clean(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SEGPIPE_HOME", str(tmp_path / "home"))
    assert one(machine.check_home()).status == "ok"
    assert list((tmp_path / "home").iterdir()) == []


def test_a_home_that_cannot_be_written_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SEGPIPE_HOME", str(tmp_path / "file"))
    check = one(machine.check_home())
    assert (check.status, check.is_service) == ("fail", False)
    assert str(tmp_path / "file") in check.found
    assert "SEGPIPE_HOME" in check.fix


@pytest.mark.parametrize(("found", "status"), [(0, "fail"), (GIB, "warn"), (10 * GIB - 1, "warn"), (10 * GIB, "ok")])
def test_amounts_have_two_thresholds(found: int, status: str) -> None:
    check = amount("disk", found, fewest=GIB, enough=10 * GIB, what="free", fix="tidy up")
    assert check.status == status
    assert ("tidy up" in check.fix) == (status != "ok")


def test_the_cache_tells_its_place_and_limit_and_what_stands_in_its_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEGPIPE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: SimpleNamespace(free=2 * GIB))
    check = one(machine.check_cache())
    assert (check.status, check.found) == ("ok", f"{tmp_path}/cache: 0.0 of 32.0 GiB, 2.0 GiB free")
    (tmp_path / "cache").mkdir()
    (tmp_path / "cache" / ("0" * 64)).write_bytes(b"1")
    check = one(machine.check_cache())
    assert check.status == "warn"
    assert "SEGPIPE_CACHE_GIB" in check.fix
    monkeypatch.setenv("SEGPIPE_CACHE_GIB", "1.5")
    assert one(machine.check_cache()).status == "ok"
    monkeypatch.setenv("SEGPIPE_CACHE_GIB", "0")
    assert "off" in one(machine.check_cache()).found
    monkeypatch.setenv("SEGPIPE_CACHE_GIB", "lots")
    assert one(machine.check_cache()).status == "fail"
    monkeypatch.delenv("SEGPIPE_CACHE_GIB")
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SEGPIPE_CACHE", str(tmp_path / "file" / "cache"))
    assert "cache: no such file or folder" in one(machine.check_cache()).found


def test_the_disk_of_a_home_that_is_not_there_yet_is_that_of_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[Path] = []
    monkeypatch.setenv("SEGPIPE_HOME", str(tmp_path / "a" / "b"))
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: asked.append(path) or SimpleNamespace(free=2 * GIB))
    check = one(machine.check_disk())
    assert asked == [tmp_path]
    assert (check.status, check.found) == ("warn", "2.0 GiB free")


def test_small_shared_memory_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.shutil, "disk_usage", lambda path: SimpleNamespace(total=64 * 2**20))
    check = one(machine.check_shared_memory(tmp_path))
    assert check.status == "warn"
    assert "--shm-size" in check.fix
    assert one(machine.check_shared_memory(tmp_path / "absent")).status == "ok"


def test_available_memory_is_read(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    meminfo.write_text("MemTotal: 99999999 kB\nMemAvailable:    2097152 kB\n")
    assert one(machine.check_memory(meminfo)).found == "2.0 GiB available"
    assert one(machine.check_memory(tmp_path / "absent")).status == "ok"


@pytest.mark.parametrize(
    ("prints", "code", "torch", "status"),
    [
        ("NVIDIA H200, 143771 MiB, 580.1\n", 0, "2.15.0", "ok"),
        ("NVIDIA H200, 143771 MiB, 580.1\n", 0, "2.15.0+cpu", "warn"),
        ("NVIDIA-SMI has failed\n", 9, "2.15.0", "warn"),
    ],
)
def test_a_gpu_is_described_and_what_keeps_it_idle_is_said(
    prints: str, code: int, torch: str, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    answer = SimpleNamespace(stdout=prints, stderr="", returncode=code)
    monkeypatch.setattr(machine.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(machine.subprocess, "run", lambda *args, **options: answer)
    monkeypatch.setattr(machine, "_installed", lambda name: torch)
    check = one(machine.check_gpu())
    assert check.status == status
    assert prints.strip() in check.found


def test_a_driver_that_hangs_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def hang(*args: Any, timeout: float, **options: Any) -> None:
        raise machine.subprocess.TimeoutExpired("nvidia-smi", timeout)

    monkeypatch.setattr(machine.shutil, "which", lambda name: "/usr/bin/nvidia-smi")
    monkeypatch.setattr(machine.subprocess, "run", hang)
    check = one(machine.check_gpu())
    assert (check.status, check.found) == ("warn", "nvidia-smi does not answer")


def test_no_gpu_is_no_fault(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    assert one(machine.check_gpu()).status == "ok"


# --- services ---------------------------------------------------------------------------------------------------------


def no_ray(**_: Any) -> None:
    raise UnreachableError("nobody answers at 10.1.2.3:6379")


def test_ray_of_its_own_is_started(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[bool] = []
    monkeypatch.setattr(on_ray, "connect", lambda: calls.append(True))
    assert one(services.check_ray()).found == "a Ray of its own"
    assert calls == [True]


def test_a_cluster_that_does_not_answer_and_has_no_token_is_two_findings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", "10.1.2.3:6379")
    monkeypatch.delenv("RAY_AUTH_MODE", raising=False)
    monkeypatch.setattr(on_ray, "connect", no_ray)
    silent, open_door = services.check_ray()
    assert (silent.status, silent.is_service) == ("fail", True)
    assert "ray status --address 10.1.2.3:6379" in silent.fix
    assert (open_door.status, open_door.found) == ("warn", "RAY_AUTH_MODE=(unset) for 10.1.2.3")


@pytest.mark.parametrize(("address", "mode"), [("10.1.2.3:6379", "token"), ("127.0.0.1:6379", ""), ("auto", "")])
def test_a_token_or_loopback_is_safe(address: str, mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RAY_ADDRESS", address)
    monkeypatch.setenv("RAY_AUTH_MODE", mode)
    monkeypatch.setattr(on_ray, "connect", lambda: None)
    assert one(services.check_ray()).status == "ok"


def test_the_embedded_mlflow_and_prefect_are_fine() -> None:
    assert one(services.check_mlflow()).status == "ok"
    assert "embedded" in one(services.check_prefect()).found


def test_servers_that_answer_are_fine(serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    address = serve()
    monkeypatch.setenv("MLFLOW_TRACKING_URI", address)
    monkeypatch.setenv("PREFECT_API_URL", f"{address}/api")
    assert one(services.check_mlflow()).status == "ok"
    assert one(services.check_prefect()).status == "ok"


def test_servers_that_are_down_are_named_without_their_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://ann:secret@127.0.0.1:9")
    monkeypatch.setenv("PREFECT_API_URL", "http://ann:secret@127.0.0.1:9/api")
    for check in (one(services.check_mlflow()), one(services.check_prefect())):
        assert (check.status, check.is_service) == ("fail", True)
        assert "127.0.0.1:9" in check.found
        assert "secret" not in repr(check)


@pytest.mark.parametrize("url", ["http://localhost:42O0/api", "http://[::1/api"])
def test_an_address_with_a_slip_of_the_pen_is_a_finding(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", url)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", url)
    for check in (one(services.check_mlflow()), one(services.check_prefect())):
        assert (check.status, check.is_service) == ("fail", True)
    assert next(services.check_clock()).status == "ok", "a server that cannot be asked says nothing about the clock"


def test_a_prefect_server_in_trouble_is_a_failure(serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PREFECT_API_URL", serve(status=503))
    assert "503" in one(services.check_prefect()).found


@pytest.mark.parametrize(("url", "warned"), [("http://mlflow.example", 1), ("https://mlflow.example", 0), (NOBODY, 0)])
def test_plain_http_to_another_machine_is_a_warning(url: str, warned: int) -> None:
    assert [check.status for check in services._plain_http("mlflow", url)] == ["warn"] * warned


@pytest.mark.parametrize(("ahead", "status"), [(0, "ok"), (-3600, "warn"), (3600, "warn")])
def test_the_clock_is_compared_with_a_server(
    ahead: float, status: str, serve: Callable[..., str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PREFECT_API_URL", serve(ahead=ahead))
    assert one(services.check_clock()).status == status


def test_a_clock_before_our_own_files_is_a_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(services.time, "time", lambda: 0.0)
    assert one(services.check_clock()).status == "fail"


# --- all of them ------------------------------------------------------------------------------------------------------


def test_every_check_is_announced_and_made(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(on_ray, "connect", lambda: None)
    announced: list[str] = []
    checks = doctor.examine(announced.append)
    assert announced == list(doctor.CHECKS)
    assert {check.name for check in checks} >= {"python", "packages", "home", "disk", "ray", "mlflow", "prefect"}


def test_the_exit_status_tells_a_service_from_another_fault() -> None:
    fine = Check(name="a", status="ok", found="", expected="")
    odd = Check(name="b", status="warn", found="", expected="")
    broken = Check(name="c", status="fail", found="", expected="")
    silent = Check(name="d", status="fail", found="", expected="", is_service=True)
    assert doctor.exit_status([fine, odd]) == 0
    assert doctor.exit_status([fine, broken]) == 1
    assert doctor.exit_status([broken, silent, fine]) == 3
