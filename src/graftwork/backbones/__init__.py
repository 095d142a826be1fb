"""Opening a source as a backbone, and building a saved one again."""

from graftwork import registry
from graftwork.backbones.base import Backbone, BackboneState, Family, Options
from graftwork.records import Notify, silent
from graftwork.rows import Rows
from graftwork.sources import Source

__all__ = ["open_backbone", "restore"]


def open_backbone(
    source: Source,
    sample: Rows | None,
    *,
    pooling: str | None = None,
    resize: str | None = None,
    runtime: str | None = None,
    notify: Notify = silent,
) -> Backbone:
    """The source, ready to give features, by the family that it names.

    sample: rows on which a faster path must agree with float32 torch before it is taken; looked at
    once per source and machine, None for made-up ones. The others: see Options.
    Raises RequestError for what the source cannot do, ArtefactError for damaged files.
    """
    from graftwork.backbones.engine import check_runtime

    check_runtime(runtime)
    family: Family = registry.get("backbones", source.family)
    return family.open_source(source, sample, Options(pooling, resize, runtime), notify)


def restore(state: BackboneState) -> Backbone:
    """The backbone of a saved state, by the family it names; raises UnknownName."""
    family: Family = registry.get("backbones", state.family)
    return family.restore(state)
