"""A strategy by its name, its settings as the caller gave them: checked one by one, before any work.

A setting is a field of the strategy itself or of its `options` (see `tuning.Options`). From the command
line its value comes as text and is read by the field's type.
"""

import math
import types
from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass, replace
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from graftwork import registry
from graftwork.errors import RequestError, nearest
from graftwork.strategies.base import Strategy

OWN = frozenset({"name", "transfers", "quick", "options"})
"""Fields of a strategy that say what it is; nobody sets them."""
COUNTS = frozenset({"epochs", "batch", "pieces", "patience", "rank", "steps", "units", "views"})
"""Whole numbers of which there must be one at least."""
SHARES = frozenset({"warmup", "smoothing", "dropout"})
TRUTH = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}


def configured(strategy: str | Strategy, settings: Mapping[str, object] | None = None) -> Strategy:
    """The strategy, with its settings in place; raises UnknownName and RequestError, a line each.

    strategy: a registered name, or a Strategy, whose settings are then changed in a copy. settings: name ->
    value; text is read as the setting's type asks ("none" for one that is left to the strategy).
    """
    if settings is not None and not isinstance(settings, Mapping):
        kind = type(settings).__name__  # type: ignore[unreachable]  # callers are not checked
        raise RequestError(f"settings: a {kind} seen; expected name -> value, such as {{'epochs': 5}}")
    recipe: Strategy = registry.get("strategies", strategy)() if isinstance(strategy, str) else strategy
    own: dict[str, object] = {}
    options: dict[str, object] = {}
    known = known_settings(recipe)
    for name, given in (settings or {}).items():
        if name not in known:
            raise _unknown(recipe, name, known)
        hint, shared = known[name]
        (options if shared else own)[name] = checked(name, given, hint)
    if options:
        own["options"] = replace(recipe.options, **options)  # type: ignore[attr-defined]  # known has it
    return replace(recipe, **own) if own else recipe  # type: ignore[type-var]  # only dataclasses have any


def known_settings(recipe: Strategy) -> dict[str, tuple[Any, bool]]:
    """name -> (type, whether it lies in `options`), of everything that may be set of this strategy."""
    known: dict[str, tuple[Any, bool]] = {}
    shared = getattr(recipe, "options", None)
    for holder, inside in ((shared, True), (recipe, False)):  # a field of its own goes before a shared one
        if is_dataclass(holder):
            hints = get_type_hints(type(holder))
            names = [field.name for field in fields(holder) if inside or field.name not in OWN]
            known |= {name: (hints[name], inside) for name in names if _settable(hints[name])}
    return known


def pairs(said: Sequence[str]) -> dict[str, str]:
    """NAME=VALUE, as --set gives them, as a mapping; raises RequestError for one of another form."""
    found: dict[str, str] = {}
    for one in said:
        name, equals, value = one.partition("=")
        name = name.strip().replace("-", "_")
        if not equals or not name:
            raise RequestError(f"--set {one} seen; expected NAME=VALUE, such as --set epochs=5")
        if name in found:
            raise RequestError(f"--set {name} is given twice ({found[name]} and {value.strip()}); give one")
        found[name] = value.strip()
    return found


def checked(name: str, given: object, hint: Any) -> object:
    """`given` as the type asks; raises RequestError, saying what would do."""
    for kind in _kinds(hint):
        value = _read(given, kind)
        if value is not _NOT:
            _bounded(name, value)
            return value
    raise RequestError(f"{name}={given} seen; expected {_expected(hint)}")


_NOT = object()


def _read(given: object, kind: Any) -> object:
    """The value where it is one of this kind, else _NOT."""
    text = given.strip() if isinstance(given, str) else None
    if kind is type(None):
        return None if given is None or (text or "").lower() == "none" else _NOT
    if get_origin(kind) is Literal:
        return next((one for one in get_args(kind) if given == one or text == str(one)), _NOT)
    if get_origin(kind) is tuple:
        parts = [part for part in (text or "").split(",") if part] if text is not None else given
        inner = get_args(kind)[0]
        read = [_read(part, inner) for part in parts] if isinstance(parts, (list, tuple)) else [_NOT]
        return _NOT if _NOT in read or not read else tuple(read)
    if kind is bool:
        return given if isinstance(given, bool) else TRUTH.get((text or "").lower(), _NOT)
    if isinstance(given, bool):
        return _NOT
    if kind is str:
        return text if text else _NOT
    try:
        if kind is int:
            return given if isinstance(given, int) else int(text) if text is not None else _NOT
        return float(given) if isinstance(given, (int, float, str)) else _NOT
    except ValueError:
        return _NOT


def _bounded(name: str, value: object) -> None:
    if not isinstance(value, (int, float)) or isinstance(value, bool):
        return
    if name in COUNTS and value < 1:
        raise RequestError(f"{name}={value} seen; expected 1 or more")
    if not math.isfinite(value) or value < 0:
        raise RequestError(f"{name}={value} seen; expected a finite number, zero or more")
    if name in SHARES and value >= 1:
        raise RequestError(f"{name}={value} seen; expected a share, 0 or more and less than 1")


def _kinds(hint: Any) -> tuple[Any, ...]:
    """The members of a union, those that read less first: a number before a text."""
    kinds = get_args(hint) if get_origin(hint) in (Union, types.UnionType) else (hint,)
    order = [type(None), bool, int, float]
    return tuple(sorted(kinds, key=lambda kind: order.index(kind) if kind in order else 5 + (kind is str)))


def _settable(hint: Any) -> bool:
    plain = (bool, int, float, str, type(None))
    return all(kind in plain or get_origin(kind) in (Literal, tuple) for kind in _kinds(hint))


def _expected(hint: Any) -> str:
    words = {
        bool: "true or false", int: "a whole number", float: "a number", str: "a name", type(None): "none",
    }  # fmt: skip
    said: list[str] = []
    for kind in _kinds(hint):
        if get_origin(kind) is Literal:
            said += [str(one) for one in get_args(kind)]
        elif get_origin(kind) is tuple:
            said.append("values with commas between them")
        elif kind is not type(None):
            said.append(words[kind])
    return said[0] if len(said) == 1 else f"{', '.join(said[:-1])} or {said[-1]}"


def _unknown(recipe: Strategy, name: str, known: Mapping[str, object]) -> RequestError:
    if not known:
        return RequestError(f"strategy {recipe.name!r} has no settings; leave {name} out")
    close = nearest(name, known)
    hint = f"; did you mean {close!r}?" if close else ";"
    return RequestError(
        f"strategy {recipe.name!r} has no setting {name!r}{hint} known: {', '.join(sorted(known))}"
    )
