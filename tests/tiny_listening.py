"""A service that listens, in this process: for tests that need real connections."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

import uvicorn

from graftwork.service.app import create_app
from graftwork.service.context import Service


@contextmanager
def listening(service: Service) -> Iterator[str]:
    """The address of `service` on a free port of this machine, until the block ends."""
    config = uvicorn.Config(create_app(service), port=0, lifespan="off", log_level="error", ws="none")
    server = uvicorn.Server(config)
    thread = threading.Thread(target=server.run)
    thread.start()
    try:
        until = time.monotonic() + 120
        while not server.started:
            assert thread.is_alive() and time.monotonic() < until, "the server did not start"
            time.sleep(0.01)
        port = server.servers[0].sockets[0].getsockname()[1]
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
