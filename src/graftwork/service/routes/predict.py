"""Predictions: the way that most requests go, so nothing lies on it that need not."""

from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter, Request, Response
from fastapi.routing import APIRoute
from starlette.concurrency import run_in_threadpool

from graftwork.errors import ArtefactError
from graftwork.service.asking import Question, answers, items, question, require_few
from graftwork.service.callers import Caller
from graftwork.service.context import Service, caller, service
from graftwork.service.models import Known
from graftwork.service.problems import Pointer, Problem
from graftwork.service.routes.models import damaged
from graftwork.service.strict import encoded, written
from graftwork.serving.records import Replies

FEW = 5_000
"""Probabilities that are written on the event loop; more are written in a thread."""


class Lean(APIRoute):
    """A route whose function gets the request as it is; its parameters stand in the document alone."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler: Callable[[Request], Coroutine[Any, Any, Response]] = self.endpoint
        return handler


router = APIRouter(prefix="/v1", tags=["predict"], route_class=Lean)
_TEXT = {"type": "string"}
_DATA = {
    "type": "object",
    "required": ["data"],
    "properties": {
        "data": {"type": "string", "format": "byte", "description": "base64"},
        "name": _TEXT,
        "media_type": _TEXT,
    },
}
_TOP = {"type": "integer", "minimum": 1, "description": "how many probabilities, the largest; all by default"}
_BINARY = {"type": "string", "format": "binary"}
_ASKED = {
    "type": "object",
    "additionalProperties": False,
    "required": ["inputs"],
    "properties": {
        "model": {"type": "string", "description": "id or name"},
        "models": {"type": "array", "items": _TEXT, "minItems": 1},
        "inputs": {"type": "array", "minItems": 1, "items": {"oneOf": [_TEXT, _DATA]}},
        "top": _TOP,
    },
    "example": {"model": "tickets", "inputs": ["I was charged twice this month"]},
}
_FORM = {
    "type": "object",
    "required": ["input"],
    "properties": {
        "model": _TEXT,
        "models": _TEXT,
        "top": _TOP,
        "input": {"type": "array", "items": _BINARY},
    },
}
_ANSWER = {
    "type": "object",
    "required": ["input"],
    "properties": {
        "input": _TEXT,
        "label": _TEXT,
        "probability": {"type": "number"},
        "unknown": {"type": "boolean"},
        "probabilities": {"type": "object", "additionalProperties": {"type": "number"}},
        "error": {"type": "string", "description": "why it could not be read, in place of an answer"},
    },
}
_ANSWERS = {
    "type": "object",
    "required": ["model", "name", "answers"],
    "properties": {"model": _TEXT, "name": _TEXT, "answers": {"type": "array", "items": _ANSWER}},
}
_SEVERAL = {
    "type": "object",
    "required": ["answers"],
    "properties": {"answers": {"type": "array", "items": _ANSWERS}},
}
_DOCUMENT: dict[str, Any] = {
    "parameters": [
        {"name": "model", "in": "query", "schema": _TEXT, "description": "id or name"},
        {"name": "models", "in": "query", "schema": _TEXT, "description": "several, with commas between"},
        {"name": "top", "in": "query", "schema": _TOP},
        {
            "name": "name",
            "in": "query",
            "schema": _TEXT,
            "description": "of an input that is the body itself",
        },
    ],
    "requestBody": {
        "required": True,
        "description": "One input as it is, a form as curl -F sends it, or JSON.",
        "content": {
            "application/json": {"schema": _ASKED},
            "multipart/form-data": {"schema": _FORM},
            "image/*": {"schema": _BINARY},
            "audio/*": {"schema": _BINARY},
            "text/plain": {"schema": _TEXT},
        },
    },
    "responses": {"200": {"content": {"application/json": {"schema": {"oneOf": [_ANSWERS, _SEVERAL]}}}}},
}


@router.post("/predict", response_class=Response, openapi_extra=_DOCUMENT)
async def predict(request: Request) -> Response:
    """Answers for one or more inputs; features are computed once however many models are asked."""
    here, who = service(request), caller(request)
    asked = await question(request, here.settings.limits)
    models = [here.models.get(who, name) or await _find(here, who, name) for name in asked.models]
    require_few(models, len(asked.inputs), asked.top)
    replies = await _ask(here, asked, models)
    if len(asked.inputs) == 1 and all(0 in reply.unreadable for reply in replies):
        reason = replies[0].unreadable[0]
        detail = f"{asked.inputs[0].name[:80]} {reason}; send another"
        raise Problem(422, "unreadable-input", detail, [Pointer("/inputs/0", reason)])
    done = len(asked.inputs) * len(models)
    here.meter.count(who.owner_id, "predictions", done)
    here.metrics.predictions(done)
    if sum(reply.probabilities.size for reply in replies) > FEW:
        body = await run_in_threadpool(_written, asked, models, replies)
    else:
        body = _written(asked, models, replies)
    return Response(body, media_type="application/json")


async def _find(here: Service, who: Caller, name: str) -> Known:
    return await run_in_threadpool(here.models.find, who, name)


async def _ask(here: Service, asked: Question, models: list[Known]) -> list[Replies]:
    kinds = {one.kind for one in models}
    if len(kinds) > 1:
        said = ", ".join(f"{one.name[:40]!r} takes {one.kind}" for one in models[:5])
        raise Problem(
            422, "invalid-request", f"models of several kinds seen ({said}); ask each kind by itself"
        )
    inputs = items(asked.inputs, models[0].kind, models[0].name)
    try:
        replies: list[Replies] = await here.serving.answer([one.folder for one in models], inputs)
        return replies
    except ArtefactError as error:
        for one in models:
            if str(one.folder) in str(error) or not one.folder.exists():
                raise damaged(one, error) from error
        raise


def _written(asked: Question, models: list[Known], replies: list[Replies]) -> bytes:
    # piece by piece: one long call into the encoder would hold up every other request
    each = [
        f'{{"model": {written(one.id)}, "name": {written(one.name)}, "answers": '
        f"[{', '.join(answers(asked.inputs, reply, asked.top))}]}}"
        for one, reply in zip(models, replies, strict=True)
    ]
    said = f'{{"answers": [{", ".join(each)}]}}' if asked.several else each[0]
    return encoded(said)
