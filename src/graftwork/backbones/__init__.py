"""Opening a source as a backbone, and building a saved one again."""

from graftwork.backbones.base import Backbone, BackboneState
from graftwork.records import Notify, silent
from graftwork.rows import Rows
from graftwork.sources import COMPACT, Source

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
    """The source, ready to give features.

    sample: rows on which a faster path must agree with float32 torch before it is taken; looked at
    once per source and machine, None for made-up ones. pooling: auto, pooled, cls, mean or flatten
    for pictures; auto, mean, cls or max for texts. resize: crop or fit (pictures). runtime: openvino,
    torch or cuda, None for the fastest that agrees.
    Raises RequestError for what the source cannot do, ArtefactError for damaged files.
    """
    from graftwork.backbones.engine import check_runtime
    from graftwork.errors import RequestError

    wanted = check_runtime(runtime)
    if source.json("config.json").get("model_type") == COMPACT:
        from graftwork.backbones.compact import open_compact

        compact: Backbone = open_compact(source)
        return compact
    if source.kind == "image":
        from graftwork.backbones.images import open_images

        return open_images(source, sample, pooling=pooling, resize=resize, runtime=wanted, notify=notify)
    if resize is not None:
        raise RequestError(f"source {source.name!r} takes texts, which have no size; leave --resize out")
    from graftwork.backbones.texts import open_texts

    return open_texts(source, sample, pooling=pooling, runtime=wanted, notify=notify)


def restore(state: BackboneState) -> Backbone:
    """The backbone of a saved state, by the family it names; raises UnknownName."""
    from graftwork import registry

    restored: Backbone = registry.get("backbones", state.family)(state)
    return restored
