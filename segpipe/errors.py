"""Every error that segpipe raises on purpose.

House rule 6: a message says what was wrong (with the value), where (file, sample id or config path), what was
expected, and what to do. Each class maps to one exit status of the command line (`exit_status`), so that a script can
tell a typo from a service that is down.
"""


class SegpipeError(Exception):
    """A fault that segpipe understands; its text is written for the person who has to mend it."""

    exit_status = 1


class InputError(SegpipeError):
    """Something the user gave is wrong: a recipe, a file, a label, an option. Retrying cannot help."""

    exit_status = 2


class TooLargeError(InputError):
    """A file is longer than any of its kind is: it is not read."""


class IncomparableError(InputError):
    """Two models answer different questions, such as by different classes: no number says which is better."""


class BadSampleError(InputError):
    """One sample cannot be used. Ingest turns it into a quarantine entry and goes on with its neighbours.

    `reason` is one of the fixed words of `REASONS`, so that lists can be counted and filtered.
    """

    REASONS = (
        "missing_image",
        "missing_mask",
        "truncated",
        "unreadable",
        "format_not_allowed",
        "too_large",
        "size_mismatch",
        "exif_rotated",
        "mask_mode",
        "label_out_of_range",
        "duplicate_id",
        "bad_name",
        "outside_root",
        "bad_annotation",
        "known_bad",
    )

    def __init__(self, reason: str, file: str, detail: str, *, item: str = "") -> None:
        if reason not in self.REASONS:
            raise ValueError(f"unknown quarantine reason {reason!r}; the list is BadSampleError.REASONS")
        super().__init__(f"{file}: {reason}: {detail}")
        self.reason, self.file, self.detail, self.item = reason, file, detail, item

    def __reduce__(self) -> tuple[object, ...]:
        # Raised inside worker processes: the default pickling would call __init__ with the message alone.
        return _rebuild_bad_sample, (self.reason, self.file, self.detail, self.item)


def _rebuild_bad_sample(reason: str, file: str, detail: str, item: str) -> BadSampleError:
    return BadSampleError(reason, file, detail, item=item)


class ConflictError(SegpipeError):
    """Another writer committed something different under the same name first. What it wrote stands."""


class StorageFullError(SegpipeError):
    """There is no room; the message says how many bytes were needed. Nothing earlier was touched."""


class CorruptError(SegpipeError):
    """Stored bytes differ from their recorded hash, or a stored document does not parse."""


class NonFiniteError(SegpipeError):
    """Training met a NaN or Inf. Retrying would meet it again, so nobody retries."""


class UnreachableError(SegpipeError):
    """A service (MLflow, Ray, Prefect, an object store) did not answer."""

    exit_status = 3
