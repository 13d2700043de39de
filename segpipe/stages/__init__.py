"""What segpipe does, as plain, idempotent functions: one file a stage, the same names as in `flows/`.

`flows/` (Prefect) and `cli/` are two doors onto these functions. Each begins by asking whether its result is there
and valid, and each leaves its files under `layout.home()`, a small document last.
"""
