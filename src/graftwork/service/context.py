"""What the routes share; made once when the server starts."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated

from fastapi import Depends, Request

from graftwork.service.callers import Caller
from graftwork.service.database import Database
from graftwork.service.metrics import Metrics
from graftwork.service.passes import Passes
from graftwork.service.settings import Settings

if TYPE_CHECKING:
    from graftwork.service.artefacts import Artefacts
    from graftwork.service.models import Models
    from graftwork.service.usage import Meter
    from graftwork.serving import Serving


@dataclass
class Service:
    """settings, the database, the artefacts' folder, the models that can be asked, what answers for them,
    and what counts requests. draining: set once the server was told to end. workers: whether they run.
    arriving: bytes of the uploads under way, by owner; of the event loop alone.
    """

    settings: Settings
    database: Database
    artefacts: "Artefacts"
    models: "Models"
    serving: "Serving"
    meter: "Meter"
    draining: bool = False
    workers: Callable[[], bool] = lambda: True
    arriving: Counter[str] = field(default_factory=Counter)
    passes: Passes = field(init=False)
    metrics: Metrics = field(init=False)

    def __post_init__(self) -> None:
        self.passes = Passes(self.database)
        self.metrics = Metrics(self.database, self.serving)


def service(request: Request) -> Service:
    """For routes: `here: Here`."""
    found: Service = request.app.state.service
    return found


Here = Annotated[Service, Depends(service)]


def caller(request: Request) -> Caller:
    """Whom the middleware let through."""
    found: Caller = request.state.caller
    return found
