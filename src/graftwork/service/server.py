"""The server process: everything that `graft serve` starts, in order, and ends in order."""

import asyncio
import errno
import logging
import os
import resource
import socket
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from types import FrameType

import uvicorn
from sqlalchemy.exc import OperationalError

from graftwork.errors import GraftworkError, RequestError
from graftwork.service import erasing, home, protocol, security, uploads
from graftwork.service.app import create_app
from graftwork.service.artefacts import Artefacts
from graftwork.service.callers import Caller
from graftwork.service.context import Service
from graftwork.service.database import Database, migrate
from graftwork.service.database.tables import OPERATOR
from graftwork.service.jobs.supervisor import Supervisor
from graftwork.service.models import Models
from graftwork.service.settings import Settings
from graftwork.service.usage import Meter
from graftwork.serving import Serving

GRACE_S = 1.0
"""How long connections that are kept alive may still ask while draining, and hear 503, not a reset."""
KEEP_S = 30
"""How long a silent connection is kept."""
FLUSH_S = 1.0
SWEEP_S = 3600.0
WARMED = 3
"""How many artefacts are tried at the start for the network that they share; one may be damaged."""
BACKLOG = 2048
FILES = 65_536
LOG = logging.getLogger("graftwork.service")


@dataclass(frozen=True)
class Ready:
    """url: where the service answers. link: opens the page as admin, once; given until it was used."""

    url: str
    link: str | None


def serve(settings: Settings, ready: Callable[[Ready], None]) -> None:
    """Serve until SIGTERM or SIGINT; `ready` is called once requests are answered.

    Raises RequestError where the port is taken, ROOT is no folder or is served already.
    """
    home.prepare(settings)
    with closing(Database(settings.url)) as database:
        with home.only_one(settings) as note, _listening(settings) as listener:
            _allow_files()
            migrate(database)
            with database.alone():
                home.require_records(settings, database)
                note(database.shown)
                uploads.sweep(settings, database)
                host = f"[{settings.host}]" if ":" in settings.host else settings.host
                url = f"http://{host}:{listener.getsockname()[1]}"
                token = (security.new_link if settings.link else security.first_link)(database)
                found = Ready(url, None if token is None else f"{settings.address or url}/sign-in/{token}")
                _run(settings, database, listener, lambda: ready(found))


def _run(settings: Settings, database: Database, listener: socket.socket, ready: Callable[[], None]) -> None:
    limits, supervisor = settings.limits, Supervisor(settings)
    serving = Serving(
        head_memory=settings.head_memory,
        backbone_memory=settings.backbone_memory,
        readers=settings.readers,
        reading_bytes=limits.reading_bytes,
        reading_seconds=limits.reading_seconds,
        queue=limits.queue,
        offline=settings.offline,
    )
    service = Service(
        settings=settings,
        database=database,
        artefacts=Artefacts(settings.artefacts),
        models=Models(settings, database, serving),
        serving=serving,
        meter=Meter(database, settings),
        workers=lambda: len(supervisor.workers) == settings.workers,
    )
    try:
        _Server(service, supervisor, ready).run(sockets=[listener])
    finally:
        supervisor.stop(settings.drain)
        service.models.close()
        serving.close()
        _patient(service.meter.flush)


class _Server(uvicorn.Server):
    """uvicorn's server; told to end, it answers what it has accepted before it closes anything."""

    def __init__(self, service: Service, supervisor: Supervisor, ready: Callable[[], None]) -> None:
        super().__init__(
            uvicorn.Config(
                create_app(service),
                loop="uvloop",
                http=protocol.serving(service),
                ws="none",
                lifespan="off",
                interface="asgi3",
                log_level="error",
                access_log=False,
                server_header=False,
                timeout_keep_alive=KEEP_S,
            )
        )
        self._service, self._supervisor, self._ready = service, supervisor, ready

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self.should_exit:
            os._exit(128 + sig)  # told twice; what was acknowledged is on disk, and children end with us
        self._service.draining = self.should_exit = True

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._chores = [
            asyncio.create_task(_again(FLUSH_S, self._service.meter.flush)),
            asyncio.create_task(_again(SWEEP_S, lambda: erasing.sweep(self._service), first=10.0)),
            asyncio.create_task(asyncio.to_thread(_warm, self._service)),
        ]
        self._ready()
        self._supervisor.start()  # last: what workers import would hold up the first answers

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        clock = asyncio.get_running_loop().time
        began, seconds = clock(), self._service.settings.drain
        workers = asyncio.create_task(asyncio.to_thread(self._supervisor.stop, seconds))
        while clock() - began < seconds and (clock() - began < GRACE_S or self._is_asked()):
            await asyncio.sleep(0.05)
        self.config.timeout_graceful_shutdown = max(1, round(seconds - (clock() - began)))
        await super().shutdown(sockets)
        await self._service.serving.drain()
        await workers
        for chore in self._chores:
            chore.cancel()

    def _is_asked(self) -> bool:
        return any(getattr(one, "is_asked", False) for one in self.server_state.connections)


async def _again(seconds: float, work: Callable[[], object], first: float | None = None) -> None:
    """Do `work` in a thread every so often; a failure is told, and it is tried again."""
    await asyncio.sleep(seconds if first is None else first)
    while True:
        try:
            await asyncio.to_thread(_patient, work)
        except Exception:
            LOG.exception("what is done every %g s failed; it is tried again", seconds)
        await asyncio.sleep(seconds)


def _patient(work: Callable[[], object]) -> None:
    """Do it, unless the database is away: that is told in a line, and passes."""
    try:
        work()
    except OperationalError as error:
        LOG.warning("the database does not answer: %s", str(error.orig).strip().partition("\n")[0])


def _warm(service: Service) -> None:
    """Load what most artefacts under ROOT share, so that the first who asks waits for little."""
    found = service.models.of(Caller(OPERATOR, OPERATOR, "admin", None))
    if not found:
        return
    shared = Counter(one.fingerprint for one in found).most_common(1)[0][0]
    for one in [one for one in found if one.fingerprint == shared][:WARMED]:
        try:
            service.serving.warm([one.folder])
        except GraftworkError as error:  # whoever asks for it hears the same
            LOG.warning("not loaded ahead of its first use: %s", error)
        else:
            return


@contextmanager
def _listening(settings: Settings) -> Iterator[socket.socket]:
    address, family = (
        (settings.host, settings.port),
        socket.AF_INET6 if ":" in settings.host else socket.AF_INET,
    )
    try:
        listener = socket.create_server(address, family=family, backlog=BACKLOG)
    except OSError as error:
        ours = error.errno in (errno.EADDRINUSE, errno.EACCES)  # else it is the host that is wrong
        # the library repeats the address within its words
        reason = (error.strerror or str(error)).partition(" (while attempting")[0]
        hint = (
            "try another --port, 0 for any that is free" if ours else "give --host an address of this machine"
        )
        raise RequestError(
            f"{settings.host}:{settings.port} cannot be listened on ({reason}); {hint}"
        ) from error
    with listener:
        yield listener


def _allow_files() -> None:
    """Connections are files: as many as the system lets this process have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    most = FILES if hard == resource.RLIM_INFINITY else min(FILES, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, most), hard))
