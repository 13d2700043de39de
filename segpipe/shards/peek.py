"""Small columns of a remote shard, by ranges: kilobytes of what may be gigabytes, before anybody fetched the file.

Beside `row_groups.py`, for what only plans a pass. The pages' checksums are compared, but the shard is not hashed: who
reads the samples later, which are hashed, compares what the plan stands on.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from segpipe import storage
from segpipe.errors import InputError
from segpipe.shards.schema import SCHEMA
from segpipe.storage import RetryBudget
from segpipe.types import Shard

# A footer and a page for each row group cost ten requests or more: a small file is sooner fetched whole.
LEAST_BYTES = 1 << 20
_BUFFER_BYTES = 4096  # a column of small numbers takes a kilobyte in a row group


def peek(
    uri: str, shard: Shard, names: Sequence[str], budget: RetryBudget | None = None
) -> list[dict[str, Any]] | None:
    """These columns of each row of the shard at `uri`.

    None where the whole file is better: it is on this machine, or is small; the server may know no ranges; or what came
    cannot be right, which the hash of the whole will tell. Raises UnreachableError.
    """
    has_ranges = storage.local_path(uri) is None and not uri.startswith(("http://", "https://"))
    if not has_ranges or shard.bytes < LEAST_BYTES or storage.find_cached(shard.sha256) is not None:
        return None
    try:
        with storage.open_read(uri, size=shard.bytes, budget=budget, buffer=_BUFFER_BYTES) as source:
            file = pq.ParquetFile(source, page_checksum_verification=True, pre_buffer=True)
            groups = tuple(file.metadata.row_group(group).num_rows for group in range(file.num_row_groups))
            if file.schema_arrow != SCHEMA or groups != shard.row_groups:
                return None
            table = file.read(list(names), use_threads=False)
    except (OSError, pa.ArrowException, ValueError, InputError):  # a damaged footer names columns in no UTF-8
        return None
    rows: list[dict[str, Any]] = table.to_pylist()
    return rows if len(rows) == shard.rows else None
