"""What an owner uses, and may use."""

from typing import Annotated, Any

from fastapi import APIRouter, Query

from graftwork.service.context import Here
from graftwork.service.database.tables import Owner
from graftwork.service.problems import not_found
from graftwork.service.security import Predicts, is_owner, require
from graftwork.service.strict import router as strict_router
from graftwork.service.usage import report

router: APIRouter = strict_router("usage")


@router.get("/usage")
def get_usage(
    here: Here,
    caller: Predicts,
    owner: Annotated[str | None, Query(description="another's id; for admins")] = None,
    days: Annotated[int, Query(ge=1, le=366)] = 30,
) -> dict[str, Any]:
    """What is there, what is allowed, and the last days."""
    wanted = caller.owner_id if owner is None else owner
    if wanted != caller.owner_id:
        require(caller, "admin")
    here.meter.flush()
    with here.database.read() as session:
        found = session.get(Owner, wanted) if is_owner(wanted) else None
        if found is None:
            raise not_found("owner", wanted)
        return report(session, found, here.settings.quotas, days)
