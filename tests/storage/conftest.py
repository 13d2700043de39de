"""One contract, two stores: every test that takes `root` runs on a local folder and on S3."""

from tests.fixtures.object_store import root, s3_root, s3_server

__all__ = ["root", "s3_root", "s3_server"]
