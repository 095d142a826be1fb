"""What every verb starts from: data made ready, a source opened, a metric by its name."""

from typing import Any, get_args

import numpy as np

from graftwork import catalogue
from graftwork.backbones import open_backbone
from graftwork.backbones.base import Backbone, Remarking
from graftwork.datasets import load
from graftwork.errors import RequestError, UnknownName
from graftwork.inspection import Inspection, dataset_digest, inspect, prepare
from graftwork.records import DatasetSummary, Metric, Notify, SourceSummary, silent
from graftwork.rows import PARTS, PLURAL, UNLABELLED, Dataset
from graftwork.sources import Source, choose, find
from graftwork.store import remember
from graftwork.strategies.base import Strategy


def ready(data: Any, *, seed: int, notify: Notify = silent, **loading: Any) -> tuple[Dataset, Inspection]:
    """Load, inspect and prepare: a dataset whose rows are readable and whose split is final."""
    if not 0 <= seed < 2**32:
        raise RequestError(f"seed {seed} seen; expected a whole number from 0 to {2**32 - 1}")
    dataset = data if isinstance(data, Dataset) else load(data, **loading)
    found = inspect(dataset, remember, notify)
    return prepare(dataset, found, seed=seed), found


def open_source(
    dataset: Dataset,
    name: str,
    recipe: Strategy,
    pooling: str | None,
    resize: str | None,
    offline: bool,
    notify: Notify,
) -> tuple[Backbone, SourceSummary] | None:
    """The backbone that the strategy builds on, and where it came from; None where it does not transfer."""
    if not recipe.transfers:
        asked = {"source": None if name == "auto" else name, "pooling": pooling, "resize": resize}
        given = [f"--{option}" for option, value in asked.items() if value is not None]
        if given:
            raise RequestError(
                f"strategy {recipe.name!r} uses no source; leave {' and '.join(given)} out, or take another "
                "strategy, such as probe"
            )
        return None
    source, reason = (
        choose(dataset.kind) if name == "auto" else (find(name, offline=offline), "named by the user")
    )
    return opened(dataset, source, reason, pooling=pooling, resize=resize, notify=notify)


def opened(
    dataset: Dataset, source: Source, reason: str, *, pooling: str | None, resize: str | None, notify: Notify
) -> tuple[Backbone, SourceSummary]:
    """The source as a backbone for these rows, and what is to be said of it; raises RequestError."""
    if source.kind != dataset.kind:
        raise RequestError(
            f"source {source.name!r} takes {PLURAL[source.kind]}, the data are {PLURAL[dataset.kind]}; "
            "try: graft sources"
        )
    backbone = open_backbone(source, dataset.rows, pooling=pooling, resize=resize, notify=notify)
    notes = backbone.remarks(dataset.rows) if isinstance(backbone, Remarking) else ()
    forbidden = catalogue.licence_note(source.name, source.licence)
    notes = notes if forbidden is None else (*notes, forbidden)
    summary = SourceSummary(
        source.name, source.revision, source.weights_sha256, source.licence, backbone.width, reason, notes
    )
    return backbone, summary


def known_metric(name: str) -> Metric:
    """The metric of that name; raises UnknownName."""
    for known in get_args(Metric):
        if name == known:
            return known  # type: ignore[no-any-return]  # one of Metric's own names
    raise UnknownName("metric", name, get_args(Metric))


def summarise(dataset: Dataset, found: Inspection) -> DatasetSummary:
    """What is said of a dataset once its rows are gone."""
    codes = dataset.target.codes
    counts = {
        str(part): {
            label: int(np.count_nonzero(codes[dataset.split.index(part)] == code))
            for code, label in enumerate(dataset.labels)
        }
        for part in PARTS
        if len(dataset.split.index(part))
    }
    return DatasetSummary(
        name=dataset.name,
        kind=dataset.kind,
        rows=len(dataset),
        labels=dataset.labels,
        counts=counts,
        unlabelled=int(np.count_nonzero(codes == UNLABELLED)),
        unreadable=found.unreadable,
        split_origin=dataset.split.origin,
        digest=dataset_digest(dataset),
        notes=dataset.notes,
    )
