"""Names of workers, by which another process on the same machine sees whether one is still alive."""

import os
import platform

import psutil

SLACK_S = 5.0
"""How far two readings of a process's start may lie apart when the clock is set."""


def own() -> str:
    """This process: its machine, its number, and when it started, since numbers are used again."""
    return f"{_machine()}/{os.getpid()}/{psutil.Process().create_time():.0f}"


def is_dead(name: str) -> bool:
    """Whether the worker of that name is known to have ended; False for one of another machine."""
    return _runs(name) is False


def is_alive(name: str) -> bool:
    """Whether the worker of that name is known to run; False for one of another machine."""
    return _runs(name) is True


def _runs(name: str) -> bool | None:
    """None for a worker of another machine."""
    machine, _, rest = name.rpartition("/")
    machine, _, number = machine.rpartition("/")
    if machine != _machine():
        return None
    try:
        process = psutil.Process(int(number))
        gone = process.status() == psutil.STATUS_ZOMBIE
        return not gone and abs(process.create_time() - float(rest)) <= SLACK_S
    except psutil.NoSuchProcess:
        return False


def _machine() -> str:
    return platform.node()[:40]
