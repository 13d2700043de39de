"""What there is to ingest: a dataset's source as it is now, and the additions that join it. Part of `ingest.py`.

An addition is more samples of the same classes, such as what people have labelled since. What all of the sources say of
each sample is what the version says; the rest is left out, and told.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from segpipe import storage
from segpipe.config import AdditionConfig, DatasetConfig, expand_root
from segpipe.errors import InputError
from segpipe.sources import Source, open_source
from segpipe.sources.reading.splits import EMPTY
from segpipe.stages import names
from segpipe.types import Annotation, ClassInfo, LabelCoding, QuarantineEntry, SampleRef

# A still is no clip without frames: it lacks nothing that the others have.
_MAY_LACK = (Annotation.CLIPS,)


@dataclass(frozen=True, kw_only=True, slots=True)
class Contract:
    """What a source says of its labels, taken once: some read it from files, which may change while ingest works."""

    licence: str
    classes: tuple[ClassInfo, ...]
    ignore_index: int
    coding: LabelCoding
    annotations: tuple[Annotation, ...]


@dataclass(frozen=True, kw_only=True, slots=True)
class ListedSource:
    """One source as it is now: its samples in order, what was refused, and what was passed over."""

    format: str
    root: str
    options: Mapping[str, str | int | float | bool]
    source: Source
    contract: Contract
    refs: tuple[SampleRef, ...]
    refused: tuple[QuarantineEntry, ...]
    notes: tuple[str, ...]


def listed(config: DatasetConfig) -> list[ListedSource]:
    """The dataset's source, then its additions; a sample whose id came before is refused.

    Raises InputError for a source without a sample, for additions of which none is new or that are of other classes,
    and for those that lack what the others fill.
    """
    return joined(listing(config), config.additions)


def joined(own: ListedSource, additions: Sequence[AdditionConfig]) -> list[ListedSource]:
    """A dataset's own listing with its additions. Raises as `listed`."""
    found = [own]
    for number, addition in enumerate(additions):
        try:
            found.append(_joining(listing(addition), addition.split, found))
        except InputError as error:
            raise InputError(f"dataset.additions.{number}: {error}") from error
    return found


def stamps_of(found: ListedSource) -> dict[str, str]:
    """The fingerprint of each file that the samples are made of: asks the storage for every one."""
    files = sorted({file for ref in found.refs for file in ref.files})
    return {file: storage.fingerprint(storage.join(found.root, file)) for file in files}


def agreed(listings: Sequence[ListedSource]) -> Contract:
    """What the version says of its labels: the dataset's own contract, with what its additions change in it."""
    first, *others = (each.contract for each in listings)
    kept = tuple(
        each for each in first.annotations if each in _MAY_LACK or all(each in other.annotations for other in others)
    )
    rules = (f"{each.format} too: {rule}" for each in listings[1:] for rule in each.contract.coding.rules)
    return replace(
        first,
        annotations=kept,
        licence="; ".join(dict.fromkeys(each.contract.licence for each in listings)),
        coding=replace(first.coding, rules=tuple(dict.fromkeys((*first.coding.rules, *rules)))),
    )


def listing(config: DatasetConfig | AdditionConfig) -> ListedSource:
    """One source. Reads no pixels; raises InputError where it cannot be opened or listed, or holds no usable sample."""
    root = expand_root(config.root)
    source = open_source(config.format, root, config.options)
    contract = _contract(source)
    found = source.index()
    refs, refused = names.checked(found.refs, found.refused)
    notes = tuple(map(names.escaped, found.notes))
    if not refs:
        raise InputError(nothing_usable(root or config.format, refused, notes))
    if _contract(source) != contract:
        raise InputError(
            f"{root}: its classes changed while they were read: run the same again, with nobody at work there"
        )
    return ListedSource(
        format=config.format,
        root=root,
        options=config.options,
        source=source,
        contract=contract,
        refs=tuple(refs),
        refused=tuple(refused),
        notes=notes,
    )


def _joining(addition: ListedSource, split: str, before: Sequence[ListedSource]) -> ListedSource:
    """The addition as it joins the sources before it: all of it in one split, no id a second time."""
    ours, theirs = before[0].contract, addition.contract
    where = addition.root or addition.format
    told = [[info.name for info in contract.classes] for contract in (ours, theirs)]
    if told[0] != told[1] or ours.ignore_index != theirs.ignore_index:
        raise InputError(
            f"{where} has the classes {told[1]}, the dataset {told[0]}; expected the same, in the "
            "same order: label by the dataset's classes (`segpipe select` writes their configuration)"
        )
    if not set(ours.annotations) & set(theirs.annotations):
        raise InputError(
            f"{where} fills {', '.join(theirs.annotations)}, and the dataset "
            f"{', '.join(ours.annotations)}; expected something that both say of each sample"
        )
    known = {ref.sample_id for each in before for ref in each.refs}
    again = [
        QuarantineEntry(
            file=ref.files[0] if ref.files else ref.sample_id,
            item=ref.sample_id,
            reason="duplicate_id",
            detail="the dataset has a sample of this id: give this one's photograph another name, there and in its "
            "annotations, or leave it out",
        )
        for ref in addition.refs
        if ref.sample_id in known
    ]
    refused = (*addition.refused, *again)
    # All of it goes into one split: that a hash would have left another empty is no matter.
    notes = [note for note in addition.notes if not note.startswith(EMPTY)]
    joining = [replace(ref, split=split) for ref in addition.refs if ref.sample_id not in known]
    if not joining:  # or what people have labelled would be missed by nobody
        raise InputError(nothing_usable(where, refused, notes))
    return replace(
        addition,
        refs=tuple(sorted(joining, key=lambda ref: ref.sample_id)),
        refused=refused,
        notes=(*notes, *_lacking(addition, ours)),
    )


def _lacking(addition: ListedSource, ours: Contract) -> Iterator[str]:
    fills = addition.contract.annotations
    if lacking := [str(each) for each in ours.annotations if each not in fills and each not in _MAY_LACK]:
        where = addition.root or addition.format
        yield f"the version has no {' and no '.join(lacking)}: {where} joins it, of which nobody said any"


def nothing_usable(where: str, refused: Sequence[QuarantineEntry], notes: Sequence[str]) -> str:
    """What to say of a source in which no sample is left: how many for each reason, the first of the commonest, and the
    notes of its index."""
    first = ""
    if refused:
        reasons = Counter(entry.reason for entry in refused).most_common()
        example = next(entry for entry in refused if entry.reason == reasons[0][0])
        first = f": {', '.join(f'{n} {reason}' for reason, n in reasons)}; first {example.file}: {example.detail}"
    told = "".join(f"\n{note}" for note in notes)
    return (
        f"{where}: no usable sample ({len(refused)} refused{first}); give the folder that holds the samples, or mend "
        f"the source's options{told}"
    )


def _contract(source: Source) -> Contract:
    """What the source says of its labels, checked. Raises InputError on two classes of one name."""
    contract = Contract(
        licence=source.licence,
        classes=source.classes,
        ignore_index=source.ignore_index,
        coding=source.coding,
        annotations=source.annotations,
    )
    times = Counter(info.name for info in contract.classes)
    if twice := sorted(name for name, count in times.items() if count > 1):
        raise InputError(
            f"source {source.name!r}: two classes are called {twice[0]!r}; expected each name once: rename one"
        )
    return contract
