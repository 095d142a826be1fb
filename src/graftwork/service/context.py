"""What the routes share; made once when the server starts."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from fastapi import Request

from graftwork.service.callers import Caller
from graftwork.service.database import Database
from graftwork.service.settings import Settings

if TYPE_CHECKING:
    from graftwork.service.artefacts import Artefacts
    from graftwork.service.models import Models
    from graftwork.service.usage import Meter
    from graftwork.serving import Serving


@dataclass
class Service:
    """settings, the database, the artefacts' folder, the models that can be asked, what answers for them,
    and what counts requests. draining: set once the server was told to end."""

    settings: Settings
    database: Database
    artefacts: "Artefacts"
    models: "Models"
    serving: "Serving"
    meter: "Meter"
    draining: bool = False


def service(request: Request) -> Service:
    """For routes: `here: Annotated[Service, Depends(service)]`."""
    found: Service = request.app.state.service
    return found


def caller(request: Request) -> Caller:
    """Whom the middleware let through."""
    found: Caller = request.state.caller
    return found
