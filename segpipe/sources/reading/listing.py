"""What `Source.index` finds: each sample id once, everything else refused with its reason. Part of `reading`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeGuard

from segpipe import storage
from segpipe.types import QuarantineEntry, SampleRef

PICTURE_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG", ".JPEG", ".PNG")


class Listing:
    """The samples of a source while its index goes over lists and folders."""

    def __init__(self) -> None:
        self._refs: dict[str, SampleRef] = {}
        self._refused: list[QuarantineEntry] = []

    def add(
        self,
        sample_id: str,
        *,
        split: str,
        group: str,
        files: tuple[str, ...],
        listed: str,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """One sample, found in the file or folder `listed`; the second one of an id is refused."""
        if (first := self._refs.get(sample_id)) is not None:
            self.refuse(listed, sample_id, "duplicate_id", f"is already in split {first.split}: keep one of the two")
            return
        self._refs[sample_id] = SampleRef(
            sample_id=sample_id, split=split, group=group, files=files, extra=dict(extra or {})
        )

    def add_pair(
        self,
        sample_id: str,
        *,
        split: str,
        group: str,
        image: str | None,
        mask: str | None,
        expected: tuple[str, str],
        listed: str,
        objects: tuple[str | None, str] | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """An image with its mask, and with a second mask of single objects where `objects` asks for one.

        None is a file that is not there, and `expected` (of `objects`, the second part) says where it should be.
        """
        found = [(image, expected[0], "missing_image"), (mask, expected[1], "missing_mask")]
        found += [(*objects, "missing_mask")] if objects else []
        for path, wanted, reason in found:
            if path is None:
                detail = f"listed in {listed}, but there is no such file: restore it or take the sample out"
                self.refuse(wanted, sample_id, reason, detail)
                return
        files = tuple(path for path, _, _ in found if path is not None)
        self.add(sample_id, split=split, group=group, files=files, listed=listed, extra=extra)

    def refuse(self, file: str, item: str, reason: str, detail: str) -> None:
        """One thing that cannot be used; `reason` is one of BadSampleError.REASONS."""
        self._refused.append(QuarantineEntry(file=file, item=item, reason=reason, detail=detail))

    def result(self) -> tuple[list[SampleRef], list[QuarantineEntry]]:
        """What `Source.index` returns."""
        return sorted(self._refs.values(), key=lambda ref: (ref.split, ref.sample_id)), self._refused


def files_by_stem(root: str, folder: str, suffix: str) -> dict[str, str]:
    """Path below `folder` ("" is the root) without `suffix` -> path below `root`, sorted; hidden files passed over."""
    found = storage.list_tree(storage.join(root, folder) if folder else root, suffix=suffix)
    shown = (path for path in found if not any(part.startswith(".") for part in path.split("/")))
    return {path.removesuffix(suffix): below(folder, path) for path in shown}


def files_below(root: str, folder: str) -> frozenset[str]:
    """Every file below `folder` ("" is the root), as paths below `root`."""
    return frozenset(below(folder, path) for path in storage.list_tree(storage.join(root, folder) if folder else root))


def below(folder: str, path: str) -> str:
    """`folder/path`, or `path` where `folder` is the root, ""."""
    return f"{folder}/{path}" if folder else path


def pictures_by_stem(root: str, folder: str, listing: Listing) -> dict[str, str]:
    """`files_by_stem` of photographs of every usual suffix; of two that share a stem, both are refused."""
    found: dict[str, list[str]] = {}
    for suffix in PICTURE_SUFFIXES:
        for stem, path in files_by_stem(root, folder, suffix).items():
            found.setdefault(stem, []).append(path)
    for stem, paths in found.items():
        if len(paths) > 1:
            for path in paths:
                detail = f"{', '.join(paths)} share the id {stem!r}: keep one of them"
                listing.refuse(path, stem, "duplicate_id", detail)
    return {stem: paths[0] for stem, paths in sorted(found.items()) if len(paths) == 1}


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value from JSON is a number that arithmetic survives: no truth, and not of four hundred digits."""
    return type(value) in (int, float) and abs(value) < 1e15  # type: ignore[arg-type]


def is_inside(path: object) -> TypeGuard[str]:
    """Whether a name from data is a relative path that stays below the folder it is joined to."""
    if not isinstance(path, str) or "\\" in path or "\0" in path:
        return False
    return all(part not in ("", ".", "..") for part in path.split("/"))
