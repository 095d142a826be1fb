"""A prediction's request in its three forms -> inputs and names of models; replies -> JSON."""

import base64
import binascii
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import parse_qsl

import numpy as np
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request

from graftwork.rows import PLURAL, Kind
from graftwork.service.models import Known
from graftwork.service.multipart import Part, media_type, parts
from graftwork.service.problems import Pointer, bad_request, unsupported
from graftwork.service.settings import Limits
from graftwork.service.shapes import plain_name
from graftwork.service.strict import LARGE, is_json, loads, written
from graftwork.serving.records import Item, Replies

NUMBERS = 1_000_000
"""The most probabilities in one answer."""
LETTERS = 20_000_000
"""The most letters of labels in one answer: every input's repeats them."""
_SHORT = 10_000
"""Probabilities whose labels cannot be too long, however long each is."""
_NAME = 200
_UNSAID = (None, "application/octet-stream", "application/x-www-form-urlencoded")
"""Media types that say nothing: the last is what curl sends with --data-binary."""
_FIELDS = {"model", "models", "inputs", "top"}


@dataclass(frozen=True)
class Given:
    """One input as it came. media: what the client says it is."""

    name: str
    content: bytes | str
    media: str | None = None


@dataclass(frozen=True)
class Question:
    """models: as named. several: whether the answer is a list, one entry a model."""

    models: Sequence[str]
    inputs: Sequence[Given]
    top: int | None
    several: bool


async def question(request: Request, limits: Limits) -> Question:
    """What is asked, however it was put; raises a Problem (4xx)."""
    # from the scope: on the way of each prediction, Starlette's views of it cost more than they help
    said = next(
        (value.decode("latin-1") for name, value in request.scope["headers"] if name == b"content-type"), ""
    )
    media = media_type(said)
    query = dict(parse_qsl(request.scope["query_string"].decode("latin-1"), keep_blank_values=True))
    if is_json(said):
        body = await request.body()
        asked, given = _from_json(body) if len(body) < LARGE else await run_in_threadpool(_from_json, body)
        fields: Mapping[str, Any] = {**query, **asked}
    elif media == "multipart/form-data":
        form, given = await _from_form(request, limits)
        fields = {**query, **form}
    else:
        fields = query
        given = [_from_body(await request.body(), media, said, query.get("name"))]
    names, several = _models(fields, limits)
    if not given:
        raise bad_request(
            "nothing to answer for; expected at least one input", Pointer("/inputs", "is missing")
        )
    if len(given) > limits.items:
        raise bad_request(f"{len(given)} inputs seen; at most {limits.items} at once: send several requests")
    return Question(names, given, _top(fields.get("top")), several)


def items(given: Sequence[Given], kind: Kind, model: str) -> list[Item]:
    """`given` as a model of that kind takes it; raises a Problem (422) where it takes no such inputs."""
    if kind == "text":
        return [_text(one, i, model) for i, one in enumerate(given)]
    found: list[Item] = []
    for i, one in enumerate(given):
        family = (one.media or "").partition("/")[0]
        if isinstance(one.content, str) or family in {"image", "audio", "text"} - {kind}:
            seen = "a text" if isinstance(one.content, str) else one.media
            raise _mismatch(i, seen, kind, model)
        found.append(one.content)
    return found


def require_few(models: Sequence[Known], inputs: int, top: int | None) -> None:
    """Raise where the answer would be too large to hold."""
    shown = [len(one.labels) if top is None else min(top, len(one.labels)) for one in models]
    numbers = inputs * sum(shown)
    if numbers > NUMBERS:
        raise bad_request(
            f"the answer would hold {numbers:,} probabilities, at most {NUMBERS:,} at once; ask for fewer "
            "with top=5, or for fewer inputs or models"
        )
    if numbers <= _SHORT:
        return
    longest = (sorted(map(len, one.labels))[-n:] for one, n in zip(models, shown, strict=True))
    letters = inputs * sum(map(sum, longest))
    if letters > LETTERS:
        raise bad_request(
            f"the labels in the answer would have {letters:,} letters, at most {LETTERS:,} at once; ask for "
            "fewer with top=5, or for fewer inputs or models"
        )


def answers(given: Sequence[Given], replies: Replies, top: int | None) -> list[str]:
    """The JSON of each answer, as `graft predict --json` writes it.

    top: how many probabilities, the largest first; all of them in the labels' order where it is None.
    """
    labels = replies.labels
    probabilities = replies.probabilities
    best = probabilities.argmax(axis=1).tolist()
    unknown = replies.unknown.tolist()
    said = []
    for i, one in enumerate(given):
        if i in replies.unreadable:
            said.append(written({"input": one.name, "error": replies.unreadable[i]}))
            continue
        row = probabilities[i].tolist()
        if top is None:
            shown = dict(zip(labels, row, strict=True))
        else:
            order = np.argsort(-probabilities[i], kind="stable")[:top].tolist()
            shown = {labels[code]: row[code] for code in order}
        line = {
            "input": one.name,
            "label": labels[best[i]],
            "probability": row[best[i]],
            "unknown": unknown[i],
            "probabilities": shown,
        }
        said.append(written(line))
    return said


def _from_json(body: bytes) -> tuple[dict[str, Any], list[Given]]:
    """(the fields beside the inputs, the inputs)"""
    asked = loads(body)
    if not isinstance(asked, dict):
        raise bad_request(
            'expected an object such as {"model": NAME, "inputs": [...]}', Pointer("", "no object")
        )
    unknown = sorted(set(asked) - _FIELDS)
    if unknown:
        raise bad_request(
            f"no field {unknown[0][:80]!r} here; known: {', '.join(sorted(_FIELDS))}",
            *(
                Pointer("/" + one.replace("~", "~0").replace("/", "~1"), "is not known")
                for one in unknown[:20]
            ),
        )
    if not isinstance(asked.get("inputs"), list):
        raise bad_request(
            "inputs is no list; expected a list of inputs", Pointer("/inputs", "expected a list")
        )
    given = [_from_value(one, i) for i, one in enumerate(asked.pop("inputs"))]
    return asked, given


def _from_value(value: Any, i: int) -> Given:
    """A text, or {data: BASE64, name?, media_type?}, or {text, name?}."""
    if isinstance(value, str):
        return Given(_short(value), value, "text/plain")
    where = Pointer(f"/inputs/{i}", 'expected a text, or {"data": BASE64}')
    if not isinstance(value, dict) or set(value) - {"data", "text", "name", "media_type"}:
        raise bad_request(f'input {i + 1} is neither a text nor {{"data": BASE64}}', where)
    name, media = value.get("name"), value.get("media_type")
    if not all(one is None or isinstance(one, str) for one in (name, media)):
        raise bad_request(f"name and media_type of input {i + 1} must be texts", where)
    if isinstance(value.get("text"), str) and "data" not in value:
        return Given(_short(name or value["text"]), value["text"], "text/plain")
    if not isinstance(value.get("data"), str) or "text" in value:
        raise bad_request(f'input {i + 1} is neither a text nor {{"data": BASE64}}', where)
    try:
        content = base64.b64decode(value["data"], validate=True)
    except (binascii.Error, ValueError):
        raise bad_request(f"the data of input {i + 1} is no base64", where) from None
    return Given(_short(name or f"input {i + 1}"), content, media_type(media))


async def _from_form(request: Request, limits: Limits) -> tuple[dict[str, str], list[Given]]:
    """Fields model, models and top, and any number of parts named input, as curl -F sends them."""
    begun: list[tuple[Part, bytearray]] = []
    async for one in parts(request):
        if isinstance(one, bytes):
            begun[-1][1].extend(one)
            continue
        if one.name not in {"model", "models", "top", "input"}:
            raise bad_request(f"no field {plain_name(one.name, 80)!r} here; known: input, model, models, top")
        begun.append((one, bytearray()))
        if len(begun) > limits.items + limits.models:
            raise bad_request(f"more than {limits.items} inputs seen; send several requests")
    fields: dict[str, str] = {}
    given: list[Given] = []
    for part, content in begun:
        if part.name != "input":
            value = _utf8(bytes(content), f"the field {part.name}")
            # curl -F model=a -F model=b
            fields[part.name] = f"{fields[part.name]},{value}" if part.name in fields else value
        elif part.filename is None and part.media_type in (None, "text/plain"):
            text = _utf8(bytes(content), f"input {len(given) + 1}")
            given.append(Given(_short(text), text, "text/plain"))
        else:
            name = _short(part.filename or f"input {len(given) + 1}")
            given.append(Given(name, bytes(content), part.media_type))
    if "model" in fields and "," in fields["model"]:
        fields["models"] = fields.pop("model")
    return fields, given


def _from_body(body: bytes, media: str | None, said: str, name: str | None) -> Given:
    if not body:
        raise bad_request("an empty body seen; expected a picture, a recording, a text, or JSON with inputs")
    family = (media or "").partition("/")[0]
    if media not in _UNSAID and family not in ("image", "audio", "text"):
        raise unsupported(
            f"{plain_name(said, 80)!r} seen; expected application/json, multipart/form-data, image/*, "
            "audio/* or text/plain"
        )
    return Given(_short(name or "input 1"), body, media)


def _models(fields: Mapping[str, Any], limits: Limits) -> tuple[list[str], bool]:
    one, many = fields.get("model"), fields.get("models")
    if isinstance(many, str):
        many = [name for name in many.split(",") if name]
    if (one is None) == (many is None):
        raise bad_request(
            'expected either model or models; curl sends JSON with --json, or with -H "Content-Type: '
            'application/json"',
            Pointer("/model", "or models"),
        )
    if isinstance(one, list):
        raise bad_request("model seen with a list; several are asked as models", Pointer("/model", "no name"))
    names = [one] if many is None else many
    if not isinstance(names, list) or not all(isinstance(name, str) and name for name in names) or not names:
        where = "/model" if many is None else "/models"
        raise bad_request("models are named by a text each, their id or name", Pointer(where, "no name"))
    if len(names) > limits.models:
        raise bad_request(f"{len(names)} models seen; at most {limits.models} at once: send several requests")
    return names, many is not None


def _top(said: Any) -> int | None:
    if said is None:
        return None
    try:
        top = int(said) if isinstance(said, str) and len(said) < 10 else said
    except ValueError:
        top = None
    if not isinstance(top, int) or isinstance(top, bool) or top < 1:
        raise bad_request("top is no number of labels; expected 1 or more", Pointer("/top", "1 or more"))
    return top


def _text(one: Given, i: int, model: str) -> str:
    if isinstance(one.content, str):
        return one.content
    if one.media not in _UNSAID and not (one.media or "").startswith("text/"):
        raise _mismatch(i, one.media, "text", model)
    return _utf8(one.content, f"input {i + 1}")


def _utf8(content: bytes, what: str) -> str:
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise bad_request(f"{what} is no text in UTF-8 (byte {error.start}); send it in UTF-8") from None


def _mismatch(i: int, seen: str | None, kind: Kind, model: str) -> Exception:
    return bad_request(
        f"input {i + 1} is {seen}, but the model {model[:80]!r} answers for {PLURAL[kind]}; send those",
        Pointer(f"/inputs/{i}", f"expected one of {PLURAL[kind]}"),
    )


def _short(name: str) -> str:
    return name if len(name) <= _NAME else name[: _NAME - 1] + "…"
