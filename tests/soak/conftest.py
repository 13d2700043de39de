"""What the rows of the goal sheet share: small photographs of streets, and the version that they must give everywhere.

Each row is one file; `make test` makes a tenth of its trials and `make soak` all (see tests/fixtures/trials.py).
"""

from tests.fixtures.object_store import s3_root, s3_server
from tests.stages.conftest import new_home
from tests.stages.ingest.conftest import expected, source

__all__ = ["expected", "new_home", "s3_root", "s3_server", "source"]
