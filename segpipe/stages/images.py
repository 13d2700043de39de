"""Who is asked, and about which images: a model by any of its names; files, a folder, a split of a dataset version.

Below `predict.py` and `predict_dataset.py`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from segpipe import checkpoint, masks, storage
from segpipe.errors import InputError
from segpipe.predict import Asked, Picture, Refused
from segpipe.shards import Dataset, open_dataset
from segpipe.sources.reading import passed_over, read_file
from segpipe.sources.reading.trees import PICTURE_SUFFIXES, shown
from segpipe.stages import datasets, layout, named_models, names
from segpipe.stages.numbers import counted
from segpipe.types import ModelBundle, QuarantineEntry, Sample

NO_SPLIT = "images"  # what the samples of a folder are called as a split


@dataclass(frozen=True, kw_only=True, slots=True)
class Chosen:
    """A model: where its bundle lies, what results of it are called, its description."""

    uri: str
    label: str
    bundle: ModelBundle


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """One image of a source: its place there, `file` as messages name it (a path below the root, or a sample id), and
    what its results are called. Of a dataset `sha256` is that of the encoded image, in hex; of files nobody knows it
    before they are read."""

    row: int
    file: str
    name: str
    sha256: str = ""

    @property
    def group(self) -> str:
        """What a file belongs to: its folder below the root, where there is one, as for the source `folder`; else
        itself."""
        return self.file.rpartition("/")[0] or self.name


@dataclass(frozen=True, kw_only=True, slots=True)
class Images:
    """Images in order. Of a dataset `root` is its URI, and `version` and `split` are set; of files it is the folder
    that they lie below. `notes` say what was passed over."""

    root: str
    requests: tuple[Request, ...]
    version: str | None = None
    split: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def identity(self) -> str:
        """What the images are, whichever of them are there today: names results."""
        return f"{self.version}/{self.split}" if self.version else self.root

    def groups(self) -> dict[str, str]:
        """What each image belongs to, by its request's name; of a dataset what it says."""
        if self.version and self.split:
            stated = open_dataset(self.root, version=self.version).groups(self.split)
            return {request.name: group for request, group in zip(self.requests, stated, strict=True)}
        return {request.name: request.group for request in self.requests}


def entry_of(request: Request, refused: Refused) -> QuarantineEntry:
    """Why nothing is said of an image, as lists and versions tell it."""
    return names.legible(QuarantineEntry(item=request.name, **refused._asdict()))


class Reader:
    """Reads the images of a source, those of one split of a `version` or files below `root`; from several threads at
    once. Unless `turned` it refuses files that their EXIF turns."""

    def __init__(self, root: str, *, version: str | None, split: str | None, turned: bool = True) -> None:
        self._root, self._split, self._turned = root, split, turned
        self._dataset = open_dataset(root, version=version) if version else None

    def picture(self, request: Request) -> Picture:
        """The encoded image, its header checked. Raises BadSampleError."""
        file = request.file
        if self._dataset is not None and self._split is not None:
            sample = self._dataset.one(self._split, request.row, extras=False)
            return Picture(file=file, image=sample.image, sample=sample)
        image = read_file(self._root, file, missing="missing_image")
        masks.check_header(image, file=file, turned=self._turned)
        return Picture(file=file, image=image)

    def hashed(self, request: Request) -> tuple[str, Picture | None]:
        """The SHA-256 of the encoded image, and the image where it had to be read for that. Raises as `picture`."""
        if request.sha256:
            return request.sha256, None
        picture = self.picture(request)
        return storage.sha256_bytes(picture.image), picture

    def sample(self, asked: Asked, request: Request) -> Sample:
        """An image that was asked about as a sample: the stored row, or one without annotations. A photograph that its
        EXIF turns is stored as PNG, upright: whoever reads a dataset turns nothing."""
        if asked.picture.sample is not None:
            return asked.picture.sample
        image, (height, width) = asked.picture.image, asked.image_HW3.shape[:2]
        if masks.read_image_header(image, file=asked.picture.file).orientation != 1:
            image = masks.encode_png(asked.image_HW3, quickly=True)
        return Sample(sample_id=request.name, image=image, height=height, width=width, group=request.group)


def chosen_model(name: str) -> Chosen:
    """The model that `models:/NAME@champion`, `models:/NAME/3` or the place of a bundle means.

    Raises InputError where there is none; UnreachableError where only MLflow could tell, and is down.
    """
    uri, experiment = named_models.bundle_and_experiment(name)
    label = experiment or layout.label_of(uri)
    return Chosen(uri=uri, label=label, bundle=checkpoint.load_bundle(uri))


def images_of(source: str, *, version: str | None, split: str | None) -> Images:
    """What `source` means: one split of a dataset, or files. Raises as `splits_of`, and InputError where a dataset has
    several splits and none is named."""
    found = splits_of(source, version=version, split=split)
    if len(found) > 1:
        names = ", ".join(sorted(str(each.split) for each in found))
        raise InputError(f"{found[0].root}: has the splits {names}; say which one is meant (--split)")
    return found[0]


def splits_of(source: str, *, version: str | None, split: str | None) -> list[Images]:
    """What `source` means: a dataset here or, by its name, in the home, whose splits come one by one; else a file or
    folder of JPEG and PNG.

    Raises InputError where there is nothing of the kind, or no image in it, and where a folder is asked for a version
    or split.
    """
    here = layout.absolute(source)
    is_dataset = not _is_file(here) and bool(storage.list_names(storage.join(here, "log"), suffix=".json"))
    if not is_dataset and storage.exists(here):
        if version or split:
            raise InputError(
                f"{here}: holds no dataset, so that it has no version and no split; leave these out, or name a dataset"
            )
        return [_files(here)]
    if not is_dataset and ("/" in source or "." in source):
        raise InputError(f"{here}: there is no such file, folder or dataset: mend the path")
    dataset = open_dataset(datasets.found(source), version=version)
    return [_of_split(dataset, name) for name in ([split] if split else dataset.manifest.splits)]


def _of_split(dataset: Dataset, split: str) -> Images:
    requests = tuple(
        Request(row=row, file=name, name=name, sha256=sha256.hex())
        for row, (name, sha256) in enumerate(dataset.identities(split))
    )
    return Images(root=dataset.uri, requests=requests, version=dataset.version, split=split)


def _is_file(here: str) -> bool:
    """Of a store the name decides: nothing there is a folder before it holds something."""
    local = storage.local_path(here)
    return here.endswith(PICTURE_SUFFIXES) if local is None else local.is_file()


def _files(here: str) -> Images:
    if _is_file(here):
        root, _, name = here.rpartition("/")
        return Images(root=root or str(Path("/")), requests=_of_files([name]))
    there = shown(here, "")
    pictures = [path for path in there if path.endswith(PICTURE_SUFFIXES)]
    if not pictures:
        raise InputError(
            f"{here}: holds no image among {counted(len(there), 'file')}; expected files ending in "
            f"{', '.join(PICTURE_SUFFIXES)}: give the folder that has them"
        )
    others = [path for path in there if not path.endswith(PICTURE_SUFFIXES)]
    notes = passed_over("file(s) that are no JPEG or PNG by name", others, "images are read in these two formats")
    return Images(root=here, requests=_of_files(pictures), notes=tuple(notes))


def _of_files(files: Sequence[str]) -> tuple[Request, ...]:
    """Two files that differ in their endings alone are named with these."""
    stems = [file.rpartition(".")[0] for file in files]
    alike = Counter(stems)
    return tuple(
        Request(row=row, file=file, name=stem if alike[stem] == 1 else file)
        for row, (file, stem) in enumerate(zip(files, stems, strict=True))
    )
