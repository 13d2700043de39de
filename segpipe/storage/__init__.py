"""Files by URI: local paths or anything fsspec knows. The only room that imports fsspec; knows nothing but `errors`.

    process.py       who is at work: one process told from every other
    uris.py          what a URI is, how names are joined, what a temporary name looks like
    faults.py        failpoints, and operating system errors turned into ours
    local.py         the commit primitive on a local file system: temp, fsync, link, fsync of the folder
    object_store.py  the same on S3: a conditional put; retries
    budget.py        what the reads of a pass may lose to retries together
    ranges.py        parts of a remote object, a bounded number of requests in flight
    cache.py         copies of remote files on this machine's disk, by content, up to a limit
    turns.py         one process at a time for work that two would do in vain
    files.py         the verbs below, on either
    documents.py     strict JSON, and append-only folders of numbered records
    leases.py        one worker at a time on a folder, whatever process or host it is in
    claims.py        any number of users of a folder, seen by the one who must know of them all
    removal.py       many files removed, several at a time in a store
    inventory.py     what lies in a folder: names of one level or of all, sizes and times, fingerprints of many files

A final path is written by `write_once` or `commit_file` and by nothing else: a name is absent or complete, and what is
there is never overwritten. `replace` takes it away first.
"""

from segpipe.storage.budget import RetryBudget
from segpipe.storage.cache import cache_folder, cache_limit, cached_bytes, fetch, find_cached, forget_cached
from segpipe.storage.claims import Claim, claim, claim_time, claimants
from segpipe.storage.documents import (
    append_record,
    canonical_json,
    last_record,
    parse_json,
    read_json,
    record_uri,
    records,
    write_json_once,
)
from segpipe.storage.faults import failpoint, writing
from segpipe.storage.files import (
    commit_file,
    delete,
    delete_tree,
    exists,
    fingerprint,
    open_read,
    read_bytes,
    replace,
    scratch,
    sha256_bytes,
    sha256_file,
    size,
    size_in,
    sweep,
    write_once,
)
from segpipe.storage.inventory import Entry, fingerprints, inventory, list_folders, list_names, list_tree
from segpipe.storage.leases import lease
from segpipe.storage.removal import delete_each
from segpipe.storage.uris import join, local_path

__all__ = [
    "Claim",
    "Entry",
    "RetryBudget",
    "append_record",
    "cache_folder",
    "cache_limit",
    "cached_bytes",
    "canonical_json",
    "claim",
    "claim_time",
    "claimants",
    "commit_file",
    "delete",
    "delete_each",
    "delete_tree",
    "exists",
    "failpoint",
    "fetch",
    "find_cached",
    "fingerprint",
    "fingerprints",
    "forget_cached",
    "inventory",
    "join",
    "last_record",
    "lease",
    "list_folders",
    "list_names",
    "list_tree",
    "local_path",
    "open_read",
    "parse_json",
    "read_bytes",
    "read_json",
    "record_uri",
    "records",
    "replace",
    "scratch",
    "sha256_bytes",
    "sha256_file",
    "size",
    "size_in",
    "sweep",
    "write_json_once",
    "write_once",
    "writing",
]
