"""Backbones: what is loaded, shared by all tasks, and the memory it takes."""

from dataclasses import asdict
from typing import Any

from fastapi import Request

from graftwork.service import shapes
from graftwork.service.context import service
from graftwork.service.database.tables import OPERATOR
from graftwork.service.security import Predicts, require
from graftwork.service.strict import router as new_router

router = new_router("backbones")


@router.get("/backbones", response_model=shapes.Backbones)
def list_backbones(request: Request, caller: Predicts) -> Any:
    """All that are in memory, whoever's tasks they serve; for the operator, and the scope admin."""
    if caller.owner != OPERATOR:
        require(caller, "admin")
    held = service(request).serving.backbones()
    return {"items": [asdict(one) for one in held], "bytes": sum(one.bytes for one in held)}
