"""The server's side of the workers: starts them, replaces those that die, ends them with itself."""

import json
import logging
import os
import shutil
import subprocess
import sys
import threading
import time
from dataclasses import dataclass

from sqlalchemy.exc import OperationalError

from graftwork.service.artefacts import Artefacts
from graftwork.service.database import Database
from graftwork.service.database.tables import TERMINAL, Job
from graftwork.service.jobs import names, queue
from graftwork.service.settings import Settings, to_json

WORK = "graftwork.service.work"
LOOK_S = 0.25
SHORT_S, LONGEST_S = 1.0, 30.0
"""Seconds before a dead worker is replaced: at first, and at most where they go on dying early."""
SOUND_S = 60.0
"""A worker that lived so long was sound."""
log = logging.getLogger(__name__)


@dataclass
class _Place:
    """Of one worker. again: when a dead one is replaced; delay: how long that was put off."""

    process: "subprocess.Popen[bytes] | None" = None
    born: float = 0.0
    again: float = 0.0
    delay: float = 0.0


class Supervisor:
    """Keeps settings.workers workers alive. work: the module that they do their work with."""

    def __init__(self, settings: Settings, work: str = WORK) -> None:
        self.settings, self.work = settings, work
        self._places = [_Place() for _ in range(settings.workers)]
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="supervisor", daemon=True)

    @property
    def workers(self) -> list[int]:
        """Processes of those that are alive."""
        alive = [place.process for place in self._places if place.process is not None]
        return [process.pid for process in alive if process.poll() is None]

    def start(self) -> None:
        """Start the workers; returns at once."""
        self._thread.start()

    def stop(self, seconds: float) -> None:
        """End the workers: their jobs go back to the queue; those not gone in time are killed."""
        self._over.set()
        if self._thread.is_alive():
            self._thread.join(seconds)
        processes = [place.process for place in self._places if place.process is not None]
        for process in processes:
            process.terminate()
        until = time.monotonic() + seconds
        for process in processes:
            try:
                process.wait(max(0.1, until - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _run(self) -> None:
        database = Database(self.settings.url)
        self._claimable(database, together=True)  # of workers that died with an earlier server
        self._tidy(database)
        while not self._over.wait(LOOK_S):
            now = time.monotonic()
            for place in self._places:
                self._tend(place, now, database)
        database.close()

    def _tend(self, place: _Place, now: float, database: Database) -> None:
        if place.process is not None and place.process.poll() is not None:
            said = f"worker {place.process.pid} ended with status {place.process.returncode}"
            place.process = None
            self._put_off(place, now, said)
            self._claimable(database)
        if place.process is None and now >= place.again:
            try:
                place.process, place.born = self._begin(), now
            except OSError as error:  # out of memory or processes, which may pass
                self._put_off(place, now, f"a worker could not be started ({error.strerror})")

    def _put_off(self, place: _Place, now: float, said: str) -> None:
        sound = now - place.born > SOUND_S
        place.delay = SHORT_S if sound else min(2 * place.delay or SHORT_S, LONGEST_S)
        place.again = now + place.delay
        log.warning("%s; another starts in %.0f s", said, place.delay)

    def _begin(self) -> "subprocess.Popen[bytes]":
        command = [sys.executable, "-P", "-m", "graftwork.service.jobs.worker"]
        process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=2, start_new_session=True)
        assert process.stdin is not None
        told = {"settings": json.loads(to_json(self.settings)), "work": self.work, "server": os.getpid()}
        try:
            process.stdin.write(json.dumps(told).encode() + b"\n")
            process.stdin.close()
        except BrokenPipeError:
            pass  # it has died already, which the next look sees
        return process

    def _claimable(self, database: Database, *, together: bool = False) -> None:
        """Jobs of dead workers need not wait until their lease has run out."""
        try:
            queue.bereave(database, names.is_dead, together=together)
        except OperationalError as error:
            log.warning("the database cannot be asked: %s", str(error.orig).strip().partition("\n")[0])

    def _tidy(self, database: Database) -> None:
        """Remove what workers that were killed have left: folders of runs that are over, half a move."""
        runs = self.settings.run("any").parent
        try:
            for folder in runs.iterdir() if runs.is_dir() else ():
                with database.read() as session:
                    job = session.get(Job, folder.name)
                if job is None or job.state in TERMINAL:
                    shutil.rmtree(folder, ignore_errors=True)
            Artefacts(self.settings.artefacts).sweep()
        except (OperationalError, OSError) as error:
            log.warning("nothing was tidied up: %s", str(error).partition("\n")[0])
