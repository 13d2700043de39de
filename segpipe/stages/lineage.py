"""Where a model comes from, link by link, each read from what is stored: data, recipe, code, weights before it, scores,
the decision that made it champion. Behind `segpipe lineage`.

A link that does not hold (a file that is gone, a hash that is another one) is told among the `broken` ones, and what
lies behind it stays empty: nothing is left out in silence, and nothing is guessed.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from segpipe import checkpoint, storage, tracking
from segpipe.errors import CorruptError, InputError, SegpipeError
from segpipe.promotion import Record
from segpipe.shards import Dataset
from segpipe.stages import layout, mirror, registration
from segpipe.stages.evaluations import REPORT, load_report
from segpipe.stages.named_models import NamedModel, named_model, scored_at
from segpipe.stages.origins import Origin, Training, dataset_of, origin_of
from segpipe.types import EvalReport, ModelBundle


@dataclass(frozen=True, kw_only=True, slots=True)
class ShardLink:
    """One file of the dataset version."""

    split: str
    path: str
    sha256: str
    rows: int


@dataclass(frozen=True, kw_only=True, slots=True)
class DataLink:
    """The dataset version behind the trainings. `uri` is where it was found, None where it is gone; `images` are all of
    its images, of which `image_hashes` (split, sample id, SHA-256 of the file) are told where they were asked for."""

    name: str
    version: str
    uri: str | None
    shards: tuple[ShardLink, ...] = ()
    images: int | None = None
    image_hashes: tuple[tuple[str, str, str], ...] = ()


@dataclass(frozen=True, kw_only=True, slots=True)
class ParentLink:
    """Weights that came before. Of a training that lies here `weights_sha256` is that of its model, and `uri` its
    folder; of weights from outside `pretrained` is their full name, or "sha256:..." of their file."""

    of: str
    pretrained: str | None = None
    label: str | None = None
    uri: str | None = None
    weights_sha256: str | None = None


@dataclass(frozen=True, kw_only=True, slots=True)
class ScoreLink:
    """One evaluation of these very weights."""

    uri: str
    dataset: str
    dataset_version: str
    split: str
    protocol: str
    primary: str
    value: float
    low: float
    high: float
    num_samples: int
    scored_by: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Lineage:
    """A model with all that is stored of where it comes from. `version` is its number in MLflow, `verdict` the decision
    that made it champion, or the last one on it; `decisions` are the numbers of all records on it."""

    model: str
    experiment: str
    label: str
    arch: str
    weights_sha256: str
    checkpoint: str
    version: int | None
    data: DataLink | None
    recipe_digest: str | None
    code_version: str | None
    trainings: tuple[Training, ...]
    parents: tuple[ParentLink, ...]
    scores: tuple[ScoreLink, ...]
    verdict: Record | None
    decisions: tuple[int, ...]
    broken: tuple[str, ...] = field(default=())


class _Links:
    """The links that do not hold, as they are met."""

    def __init__(self) -> None:
        self.broken: list[str] = []

    @contextmanager
    def tried(self, link: str) -> Iterator[None]:
        """What fails inside is told of the link, and the rest goes on."""
        try:
            yield
        except SegpipeError as error:
            self.broken.append(f"{link}: {error}")


def lineage(name: str, *, images: bool = False) -> Lineage:
    """The lineage of a model as MLflow spells its name; with `images` the hash of every image. Raises as `named_model`.

    Reads the weights once, and of the dataset its manifest and small columns.
    """
    model, links = named_model(name), _Links()
    contender = model.contender
    bundle, origin, data = None, None, None
    with links.tried("weights"):
        bundle = _bundle(model)
    if bundle is not None:
        with links.tried("recipe"):
            origin = origin_of(contender.checkpoint)
        data = _data(bundle, model, links, images=images)
    verdict = next((each for each in reversed(model.decisions) if each.kind in ("promoted", "forced")), None)
    verdict = verdict or (model.decisions[-1] if model.decisions else None)
    return Lineage(
        model=name,
        experiment=model.experiment,
        label=contender.label,
        arch=contender.arch,
        weights_sha256=contender.weights_sha256,
        checkpoint=contender.checkpoint,
        version=_version(model, links),
        data=data,
        recipe_digest=bundle.config_digest if bundle else None,
        code_version=bundle.code_version if bundle else None,
        trainings=origin.trainings if origin else (),
        parents=tuple(_parents(origin, links)) if origin else (),
        scores=tuple(_scores(model, verdict, links)),
        verdict=verdict,
        decisions=tuple(each.number for each in model.decisions),
        broken=tuple(links.broken),
    )


def _bundle(model: NamedModel) -> ModelBundle:
    """The bundle of a model, whose weights are those of the ledger to the last byte."""
    bundle = checkpoint.verify_bundle(model.contender.checkpoint)
    if bundle.weights_sha256 != model.contender.weights_sha256:
        raise CorruptError(
            f"{model.contender.checkpoint} holds weights {bundle.weights_sha256[:12]}, the ledger decided on "
            f"{model.contender.weights_sha256[:12]}"
        )
    return bundle


def _data(bundle: ModelBundle, model: NamedModel, links: _Links, *, images: bool) -> DataLink:
    dataset: Dataset | None = None
    with links.tried("dataset"):
        dataset = dataset_of(bundle, beside=scored_at(model))
    if dataset is None:
        return DataLink(name=bundle.dataset, version=bundle.dataset_version, uri=None)
    shards = [
        ShardLink(split=name, path=shard.path, sha256=shard.sha256, rows=shard.rows)
        for name, split in dataset.manifest.splits.items()
        for shard in split.shards
    ]
    there = {each.path for each in storage.inventory(storage.join(dataset.uri, "shards"))}
    for shard in shards:
        if shard.path.removeprefix("shards/") not in there:
            links.broken.append(f"dataset: {storage.join(dataset.uri, shard.path)}: this shard of the version is gone")
    hashes: list[tuple[str, str, str]] = []
    with links.tried("images"):
        for split in dataset.manifest.splits if images else ():
            hashes += [(split, sample_id, found.hex()) for sample_id, found in dataset.identities(split)]
    return DataLink(
        name=bundle.dataset,
        version=dataset.version,
        uri=dataset.uri,
        shards=tuple(shards),
        images=sum(split.samples for split in dataset.manifest.splits.values()),
        image_hashes=tuple(hashes),
    )


def _parents(origin: Origin, links: _Links) -> Iterator[ParentLink]:
    """The weights that each training behind a model began with, and the members of an ensemble."""
    for training in origin.trainings:
        if training.pretrained is not None:
            yield ParentLink(of=training.label, pretrained=training.pretrained)
        if training.role == "training":
            continue
        weights: str | None = None
        with links.tried(f"{training.role} {training.label}"):
            found = checkpoint.verify_bundle(checkpoint.model_uri(training.run_uri))
            weights = found.weights_sha256
            known = (origin.bundle.members or {}).get(training.label)
            if training.role == "member" and known != weights:
                raise CorruptError(f"{training.run_uri} holds weights {weights[:12]}, the ensemble names {known}")
        followers = [each.label for each in origin.trainings if each.start_from == training.label]
        of = followers[0] if training.role == "start_from" and followers else origin.bundle.arch
        yield ParentLink(of=of, label=training.label, uri=training.run_uri, weights_sha256=weights)


def _scores(model: NamedModel, verdict: Record | None, links: _Links) -> Iterator[ScoreLink]:
    """Every report of these weights in the home; broken where the one that was decided on is not among them."""
    place, contender = layout.evaluations_uri(model.experiment), model.contender
    decided = verdict.evaluation if verdict else None
    is_there = decided is None
    for path in storage.list_tree(place, suffix=f"/{REPORT}"):
        folder = storage.join(place, path.removesuffix(f"/{REPORT}"))
        if not folder.rpartition("/")[2].startswith(f"{contender.label}-"):
            continue
        report: EvalReport | None = None
        with links.tried("evaluation"):
            report = load_report(folder)
        if report is None or report.weights_sha256 != contender.weights_sha256:
            continue
        asked = (report.dataset_version, report.split, report.protocol)
        is_there = is_there or (
            decided is not None and asked == (decided.dataset_version, decided.split, decided.protocol)
        )
        yield ScoreLink(
            uri=folder,
            dataset=report.dataset,
            dataset_version=report.dataset_version,
            split=report.split,
            protocol=report.protocol,
            primary=report.primary,
            value=report.value,
            low=report.low,
            high=report.high,
            num_samples=report.num_samples,
            scored_by=report.scored_by,
        )
    if decided is not None and not is_there:
        links.broken.append(
            f"evaluation: below {place} lies no report of these weights on {decided.dataset} "
            f"{decided.dataset_version[:12]} / {decided.split}, on which they were judged"
        )


def _version(model: NamedModel, links: _Links) -> int | None:
    """The number of the weights in MLflow."""
    with links.tried("registry"):
        tracking.reachable(mirror.uri())
        found = tracking.registered_version(mirror.uri(), model.experiment, model.contender.weights_sha256)
        if found is None:
            raise InputError(f"{model.experiment}: MLflow at this address has no version with these weights")
        is_champion = model.name.endswith(f"@{registration.CHAMPION}")
        if is_champion and tracking.alias_version(mirror.uri(), model.experiment, registration.CHAMPION) != found:
            links.broken.append(
                f"registry: the alias {registration.CHAMPION} is not on version {found}, the ledger's champion; the "
                "next night sets it right"
            )
        return found
    return None
