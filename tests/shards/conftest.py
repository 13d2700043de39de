"""One contract, two stores: every test of a dataset that takes `root` runs on a local folder and on S3."""

from pathlib import Path

import pytest

from tests.fixtures.object_store import s3_root, s3_server

__all__ = ["root", "s3_root", "s3_server"]


@pytest.fixture(params=["local", "s3"])
def root(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """URI of an absent folder."""
    return str(tmp_path / "store") if request.param == "local" else str(request.getfixturevalue("s3_root"))
