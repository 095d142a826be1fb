"""A worker's side of the warm process (child.py): begin a job in a process of its own, watch it, end it."""

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

import psutil

from graftwork.errors import WorkError

READY_S = 300.0
GRACE_S = 3.0
"""From asking a job's process to end to ending it."""
DIED = -signal.SIGKILL


class Nursery:
    """The warm process; started at once, and soon ready. One job at a time."""

    def __init__(self, told: Mapping[str, Any], environment: Mapping[str, str]) -> None:
        command = [sys.executable, "-P", "-m", "graftwork.service.jobs.child"]
        self._warm = subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env={**os.environ, **environment},
            start_new_session=True,
        )
        self._rest = b""
        self._late = 0.0
        self.process: int | None = None
        """Of the job that is under way, once it has begun."""
        self._say(told)

    def wait(self, seconds: float) -> bool:
        """Whether it has become ready within the time; raises WorkError where it ended instead."""
        said = self._heard(seconds)
        if said is None:
            return False
        if "ready" not in said:
            raise WorkError("the process for jobs could not start; its messages above say why")
        return True

    @property
    def is_alive(self) -> bool:
        return self._warm.poll() is None

    def begin(self, job_id: str, attempt: int) -> None:
        """Ask for the process of a job; it may have to wait for an import."""
        assert self.process is None
        self._say({"job": job_id, "attempt": attempt})
        self._late = time.monotonic() + READY_S

    def ended(self, seconds: float) -> int | None:
        """The exit status of the job's process, waited for so long; None while it runs or has not begun."""
        said = self._heard(seconds)
        if said is not None and "process" in said:
            self.process = said["process"]
            return None
        if said is None and (self.process is not None or time.monotonic() < self._late):
            return None
        self._end_group(signal.SIGKILL)  # what it may have started and left
        self.process = None
        if said is None:
            self.close()  # whatever holds it up, it is not asked again
            return DIED
        return int(said.get("status", DIED))

    def stop(self) -> None:
        """End the job's process: asked first, made after GRACE_S."""
        for number, seconds in ((signal.SIGTERM, GRACE_S), (signal.SIGKILL, 10.0)):
            if self.process is None:
                break
            self._end_group(number)
            until = time.monotonic() + seconds
            while (left := until - time.monotonic()) > 0:
                if self.ended(left) is not None:
                    return
        # it has not begun, and need not; or the kernel has not ended it within ten seconds: with its parent
        self.close()

    def memory(self) -> int:
        """Bytes that the job's process and those it started hold."""
        if self.process is None:
            return 0
        total = 0
        with suppress(psutil.Error):
            job = psutil.Process(self.process)
            for process in (job, *job.children(recursive=True)):
                with suppress(psutil.Error):
                    total += process.memory_info().rss
        return total

    def close(self) -> None:
        """End the warm process, and with it the job's."""
        self._end_group(signal.SIGKILL)
        self.process = None
        self._warm.kill()
        self._warm.wait()
        for pipe in (self._warm.stdin, self._warm.stdout):
            if pipe is not None:
                with suppress(BrokenPipeError):
                    pipe.close()

    def _end_group(self, number: signal.Signals) -> None:
        if self.process is not None:
            for end in (os.killpg, os.kill):  # it may not have made its group yet
                with suppress(ProcessLookupError, PermissionError):
                    end(self.process, number)

    def _say(self, what: Mapping[str, Any]) -> None:
        assert self._warm.stdin is not None
        with suppress(BrokenPipeError):  # then the next answer is its end
            self._warm.stdin.write(json.dumps(what).encode() + b"\n")
            self._warm.stdin.flush()

    def _heard(self, seconds: float) -> dict[str, Any] | None:
        """The next answer, None where none came in time, {} where the process has ended."""
        assert self._warm.stdout is not None
        handle = self._warm.stdout.fileno()
        until = time.monotonic() + seconds
        while b"\n" not in self._rest:
            ready, _, _ = select.select([handle], [], [], max(0.0, until - time.monotonic()))
            if not ready:
                return None
            more = os.read(handle, 65536)
            if not more:
                return {}
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        found: dict[str, Any] = json.loads(line)
        return found
