"""A dataset version on disk: Parquet shards, one manifest, one log. The only room that imports pyarrow.

    schema.py    Sample <-> one Parquet row
    manifest.py  Manifest <-> strict JSON; its hash is the dataset version
    writer.py    samples -> a shard
    versions.py  a manifest -> a published version;  which version is current, or meant
    grouping.py  rows -> row groups, clips whole
    reader.py    a version -> samples, in order or in an epoch's order
    layout.py    where the rows of a split lie
    order.py     the order of an epoch: a pure function
    ahead.py     what comes next, in threads, while the present is in use
    row_groups.py  the files behind a version: checked once, row groups in use kept
    rows.py      the rows of a row group, small values at hand, large ones still packed
    peek.py      small columns of a shard that was not fetched yet, to plan by
    counting.py  which class holds how many pixels of a sample
    tables.py    Parquet files that others wrote -> rows, for sources

A dataset is a folder: `shards/<split>-<hash>.parquet`, `manifests/<version>.json` and `log/000001.json ...`, whose last
record names the current version. Writers only ever add files; what no version that is kept names any more is removed by
`segpipe data gc` alone.
"""

from segpipe.shards.manifest import manifest_from_json, manifest_to_json, manifest_version
from segpipe.shards.order import epoch_order, generator, shuffled
from segpipe.shards.reader import Dataset, open_dataset
from segpipe.shards.rows import StoredRow
from segpipe.shards.schema import SCHEMA, SCHEMA_VERSION, row_to_sample, sample_to_row
from segpipe.shards.tables import TableInfo, TableRows, describe_table
from segpipe.shards.versions import publish
from segpipe.shards.writer import ShardResult, make_split, write_shard

__all__ = [
    "SCHEMA",
    "SCHEMA_VERSION",
    "Dataset",
    "ShardResult",
    "StoredRow",
    "TableInfo",
    "TableRows",
    "describe_table",
    "epoch_order",
    "generator",
    "make_split",
    "manifest_from_json",
    "manifest_to_json",
    "manifest_version",
    "open_dataset",
    "publish",
    "row_to_sample",
    "sample_to_row",
    "shuffled",
    "write_shard",
]
