"""Name -> factory, read from entry points, so that built-ins and plug-ins come in by the same door."""

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Literal

from graftwork.errors import UnknownName

Group = Literal["strategies", "sources", "schemes", "backbones", "heads"]
"""What can be registered: strategies, readers of sources' files, sources' names of the form
scheme:NAME, backbone families, heads."""


def names(group: Group) -> tuple[str, ...]:
    """Every registered name, sorted; nothing is imported."""
    return tuple(sorted(_table(group)))


def get(group: Group, name: str) -> Any:
    """The object registered as `name`; raises UnknownName with the nearest known one."""
    table = _table(group)
    if name not in table:
        raise UnknownName(_SINGULAR[group], name, table)
    return table[name].load()


_SINGULAR: dict[Group, str] = {
    "strategies": "strategy",
    "sources": "family of sources",
    "schemes": "scheme of sources",
    "backbones": "backbone",
    "heads": "head",
}


@cache
def _table(group: Group) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"graftwork.{group}")}
