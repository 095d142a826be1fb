"""A packaged table of well-chosen pretrained models: what each is, what it costs, what its licence allows.

Every entry is true as far as it goes: a fact that is not known is None. The definitions (what counts as
a parameter, an operation, a row) are under "about" in packaged/catalogue.json, and
recipes/catalogue/measure.py counts them.
"""

import json
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from importlib.resources import files
from typing import Any, Literal, get_args

from graftwork.errors import UnknownName, nearest
from graftwork.rows import Kind

Size = Literal["small", "medium", "large"]
MULTILINGUAL = "multilingual"
_SMALL, _MEDIUM = 50_000_000, 200_000_000
_NON_COMMERCIAL = re.compile(
    r"\bnc\b|non-?commercial|research-?only|\bmsrla\b|academic|\bamlr\b", re.IGNORECASE
)
_COMMERCIAL = re.compile(
    r"(apache|mit|bsd|isc|zlib|unlicense|cc0|cc-by-\d|cc-by-sa-\d|mpl|l?gpl|agpl|wtfpl|openrail|"
    r"bigscience-openrail|public-domain|pddl|odc-by)\b",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Entry:
    """A pretrained model that is known to suit, whether or not it is on this machine.

    hub: its id on the Hugging Face hub, None for one that comes with the installation. revision: the
    commit to take, None for the newest at first use. architecture: its model_type. parameters: of the
    encoder alone. operations: multiply-adds a row. width: features a row. input_size: pixels a side,
    tokens at most, or seconds; None for any or unknown. data: what it was pretrained on. licence: as
    its model card states it. languages: ISO 639-1 codes, "code" or "multilingual".
    """

    name: str
    kind: Kind
    architecture: str
    domain: str
    hub: str | None = None
    revision: str | None = None
    parameters: int | None = None
    operations: int | None = None
    width: int | None = None
    input_size: float | None = None
    data: str | None = None
    licence: str | None = None
    languages: tuple[str, ...] = ()
    remark: str | None = None

    @property
    def size(self) -> Size | None:
        """small: under 50 million parameters, medium: under 200 million, large: more."""
        return size_class(self.parameters)

    @property
    def address(self) -> str | None:
        """What `sources.find` fetches: the hub id, with the revision where one is stated."""
        return f"{self.hub}@{self.revision}" if self.hub and self.revision else self.hub


def entries(
    kind: Kind | None = None,
    *,
    licence: str | None = None,
    size: str | None = None,
    language: str | None = None,
) -> list[Entry]:
    """The entries that fit every filter given, in the table's order.

    licence: its name, or "commercial" for any that is known to allow such use. size: see `Entry.size`.
    language: one that the model is stated for; multilingual ones fit every language. Raises UnknownName
    for a size that is none.
    """
    wanted = None if size is None else check_size(size)
    return [
        one
        for one in _table()
        if (kind is None or one.kind == kind)
        and (wanted is None or one.size == wanted)
        and fits_licence(one.licence, licence)
        and fits_language(one.languages, language)
    ]


def entry(name: str) -> Entry | None:
    """The entry of this short name or hub id; None where there is none."""
    return next((one for one in _table() if name in (one.name, one.hub)), None)


def size_class(parameters: int | None) -> Size | None:
    """small, medium or large by a number of parameters; None where it is not known."""
    if parameters is None:
        return None
    return "small" if parameters < _SMALL else "medium" if parameters < _MEDIUM else "large"


def check_size(name: str) -> Size:
    """`name` as a size class; raises UnknownName."""
    for known in get_args(Size):
        if name == known:
            return known  # type: ignore[no-any-return]  # one of Size's own names
    raise UnknownName("size", name, get_args(Size))


def fits_licence(licence: str | None, wanted: str | None) -> bool:
    """Whether a licence is the one wanted; "commercial" wants any that is known to allow such use."""
    if wanted is None:
        return True
    if wanted.lower() == "commercial":
        return commercial_use(licence) is True
    return licence is not None and licence.lower() == wanted.lower()


def fits_language(languages: tuple[str, ...], wanted: str | None) -> bool:
    """Whether a model stated for these languages may be used for `wanted`; multilingual ones always."""
    return wanted is None or wanted.lower() in languages or MULTILINGUAL in languages


def commercial_use(licence: str | None) -> bool | None:
    """Whether the licence allows commercial use, by its name; None where the name does not tell."""
    if licence is None:
        return None
    if _NON_COMMERCIAL.search(licence):
        return False
    return True if _COMMERCIAL.match(licence.strip()) else None


def forbids_commercial_use(licence: str | None) -> bool:
    """Whether the licence is known, by its name, to forbid commercial use."""
    return commercial_use(licence) is False


def licence_note(name: str, licence: str | None) -> str | None:
    """What to say where source `name` is taken although its licence forbids commercial use."""
    if not forbids_commercial_use(licence):
        return None
    return f"the licence of {name} ({licence}) forbids commercial use"


def input_in_words(kind: str | None, size: float | None) -> str | None:
    """What a row is made into: "224 x 224 pixels", "at most 512 tokens", "10.24 seconds"."""
    if size is None or kind is None:
        return None
    words = {"image": f"{size:g} x {size:g} pixels", "text": f"at most {size:g} tokens"}
    return words.get(kind, f"{size:g} seconds")


def near(name: str, known: Iterable[str]) -> str:
    """ ", did you mean 'x'?" with the nearest known name; "" where none is near."""
    close = nearest(name, known)
    return f", did you mean {close!r}?" if close else ""


@cache
def _table() -> tuple[Entry, ...]:
    text = (files("graftwork") / "packaged" / "catalogue.json").read_text("utf-8")
    return tuple(_entry(one) for one in json.loads(text)["sources"])


def _entry(stated: Mapping[str, Any]) -> Entry:
    known = {field.name for field in fields(Entry)}
    assert stated.keys() <= known, f"catalogue.json: unknown {stated.keys() - known}"
    return Entry(**{**stated, "languages": tuple(stated.get("languages", ()))})
