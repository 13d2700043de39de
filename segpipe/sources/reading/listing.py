"""What `Source.index` finds: each sample id once, everything else refused with its reason. Part of `reading`."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from types import MappingProxyType
from typing import Any, NamedTuple, TypeGuard

from segpipe.sources.reading.splits import empty_splits
from segpipe.sources.reading.trees import PICTURE_SUFFIXES, below, shown
from segpipe.sources.spec import Index
from segpipe.types import QuarantineEntry, SampleRef

NOTHING: Mapping[str, str] = MappingProxyType({})
_NAMED = 3  # of those that a note is about


class Place(NamedTuple):
    """What the path of a file says of its sample."""

    sample_id: str
    split: str
    group: str


def alone_in(split: str) -> Callable[[str], Place]:
    """For `Listing.add_folder`: every stem is a sample of `split`, and a group of its own."""
    return lambda stem: Place(stem, split, stem)


class Line(NamedTuple):
    """A sample that a list names: the stem of its files, what it is, the list, and what else the list says of it."""

    stem: str
    place: Place
    listed: str
    extra: Mapping[str, Any] = NOTHING


class Kind(NamedTuple):
    """Files of one kind: `folder/**/<stem><suffix>`."""

    folder: str
    suffix: str

    def path(self, stem: str) -> str:
        return below(self.folder, stem + self.suffix)

    def stems(self, paths: Iterable[str]) -> set[str]:
        return {path.removesuffix(self.suffix) for path in paths if path.endswith(self.suffix)}


class Found(NamedTuple):
    """The stems that there are of a kind."""

    kind: Kind
    stems: set[str]


class Listing:
    """The samples of a source while its index goes over lists and folders; those of `known_bad` are refused."""

    def __init__(self, known_bad: Mapping[str, str] = NOTHING) -> None:
        self._known_bad = known_bad
        self._refs: dict[str, SampleRef] = {}
        self._refused: list[QuarantineEntry] = []
        self._notes: list[str] = []

    def add(
        self,
        sample_id: str,
        *,
        split: str,
        group: str,
        files: tuple[str, ...],
        listed: str,
        clip: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """One sample, found in the file or folder `listed`; the second one of an id is refused."""
        if self._is_known_bad(sample_id, files[0]):
            return
        if (first := self._refs.get(sample_id)) is not None:
            self.refuse(listed, sample_id, "duplicate_id", f"is already in split {first.split}: keep one of the two")
            return
        self._refs[sample_id] = SampleRef(
            sample_id=sample_id, split=split, group=group, files=files, clip=clip, extra=dict(extra or {})
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
        further: tuple[str, ...] = (),
        clip: str | None = None,
        extra: Mapping[str, Any] | None = None,
    ) -> None:
        """An image with its mask, and with a second mask of single objects where `objects` asks for one.

        None is a file that is not there, and `expected` (of `objects`, the second part) says where it should be.
        `further` are files, known to be there, that a sample is read from too.
        """
        if self._is_known_bad(sample_id, image or expected[0]):
            return
        found = [(image, expected[0], "missing_image"), (mask, expected[1], "missing_mask")]
        found += [(*objects, "missing_mask")] if objects else []
        for path, wanted, reason in found:
            if path is None:
                detail = f"listed in {listed}, but there is no such file: restore it or take the sample out"
                self.refuse(wanted, sample_id, reason, detail)
                return
        files = (*(path for path, _, _ in found if path is not None), *further)
        self.add(sample_id, split=split, group=group, files=files, listed=listed, clip=clip, extra=extra)

    def add_folder(
        self, root: str, images: Kind, masks: Kind, place: Callable[[str], Place | None], *, objects: Kind | None = None
    ) -> int:
        """Every image with the mask (and the second mask) of the same stem, and every mask without an image.

        `place` says what a stem means, None passes it over. Gives back how many images there are.
        """
        found = _stems(root, images, masks, objects)
        of_images, of_masks = found[0].stems, found[1].stems
        for stem in sorted(of_images | of_masks):
            if (named := place(stem)) is not None:
                listed = images.folder if stem in of_images else masks.folder
                self._add_line(Line(stem, named, listed), found)
        return len(of_images)

    def add_lines(
        self,
        root: str,
        images: Kind,
        masks: Kind,
        lines: Iterable[Line],
        *,
        objects: Kind | None = None,
        unlisted: str = "",
    ) -> None:
        """Every line's image with the mask (and the second mask) of its stem; what is in no line is passed over.

        Images with a mask that no line names are noted with the remedy `unlisted`; without one, the published set has
        such images on purpose.
        """
        found = _stems(root, images, masks, objects)
        left = found[0].stems & found[1].stems if unlisted else set()
        for line in lines:
            self._add_line(line, found)
            left.discard(line.stem)
        self.pass_over("image(s) with a mask that no list names", left, unlisted)

    def _add_line(self, line: Line, found: Sequence[Found]) -> None:
        """`found` are images, masks and, if asked for, second masks."""
        paths = [each.kind.path(line.stem) for each in found]
        wanted = [(path if line.stem in each.stems else None, path) for each, path in zip(found, paths, strict=True)]
        (image, image_path), (mask, mask_path), *objects = wanted
        self.add_pair(
            line.place.sample_id,
            split=line.place.split,
            group=line.place.group,
            image=image,
            mask=mask,
            expected=(image_path, mask_path),
            listed=line.listed,
            objects=objects[0] if objects else None,
            extra=line.extra,
        )

    def refuse(self, file: str, item: str, reason: str, detail: str) -> None:
        """One thing that cannot be used; `reason` is one of BadSampleError.REASONS."""
        self._refused.append(QuarantineEntry(file=file, item=item, reason=reason, detail=detail))

    def pass_over(self, what: str, names: Collection[str], remedy: str) -> None:
        """Notes what is there and not read, where there is any."""
        self._notes += passed_over(what, names, remedy)

    def _is_known_bad(self, sample_id: str, file: str) -> bool:
        """Said before anything else: some have taken the file away already."""
        if (reason := self._known_bad.get(sample_id)) is not None:
            self.refuse(file, sample_id, "known_bad", f"{reason}: leave it out")
        return reason is not None

    def dealt(self, shares: tuple[float, ...], remedy: str) -> None:
        """Notes the splits that the hash left empty."""
        self._notes += empty_splits(self._refs.values(), shares, remedy)

    def result(self) -> Index:
        """What `Source.index` returns."""
        refs = sorted(self._refs.values(), key=lambda ref: (ref.split, ref.sample_id))
        return Index(refs, self._refused, tuple(self._notes))


def passed_over(what: str, names: Collection[str], remedy: str) -> list[str]:
    """The note of an `Index` on `names`, with how many they are and the first of them; none where there are none.

    `what` they are has "(s)" behind its noun.
    """
    shown = sorted(names)[:_NAMED]
    more = f" and {len(names) - len(shown)} more" if len(names) > len(shown) else ""
    nouns = what.replace("(s)", "" if len(names) == 1 else "s")
    return [f"passed over: {len(names)} {nouns}: {', '.join(shown)}{more}; {remedy}"] if names else []


def _stems(root: str, *kinds: Kind | None) -> list[Found]:
    """What there is of each kind that is asked for; kinds of one folder are found in one listing of it."""
    asked = [kind for kind in kinds if kind is not None]
    trees = {folder: shown(root, folder) for folder in {kind.folder for kind in asked}}
    return [Found(kind, kind.stems(trees[kind.folder])) for kind in asked]


def pictures_by_stem(root: str, folder: str, listing: Listing) -> dict[str, str]:
    """`files_by_stem` of photographs of every usual suffix; of two that share a stem, both are refused."""
    found: dict[str, list[str]] = {}
    for path in shown(root, folder):
        stem, dot, extension = path.rpartition(".")
        if dot + extension in PICTURE_SUFFIXES:
            found.setdefault(stem, []).append(below(folder, path))
    for stem, paths in found.items():
        if len(paths) > 1:
            for path in paths:
                detail = f"{', '.join(paths)} share the id {stem!r}: keep one of them"
                listing.refuse(path, stem, "duplicate_id", detail)
    return {stem: paths[0] for stem, paths in sorted(found.items()) if len(paths) == 1}


def is_number(value: object) -> TypeGuard[int | float]:
    """Whether a value from JSON is a number that arithmetic survives: no truth, and not of four hundred digits."""
    return type(value) in (int, float) and abs(value) < 1e15  # type: ignore[arg-type]
