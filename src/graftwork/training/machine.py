"""What this machine gives a training: threads, memory that stays, its precision, its device."""

import ctypes
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any, Literal

import torch
from torch import nn

from graftwork import paths
from graftwork.backbones import converted, engine
from graftwork.backbones.engine import has_gpu

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_MMAP_MAX_DEFAULT = 65_536
_KEEP, _TRIM_DEFAULT = 2**31 - 1, 128 * 1024
WORTH_MEASURING = 300
"""Steps from which on a training is long enough to try how many threads suit it."""
_CLEARLY = 0.9
_ROUNDS = 4
_QUIET = 0.1
"""Cores that others may keep busy meanwhile, at most: beside them fewer threads look better than they are."""
COMPILED_FROM = 2_000
"""Steps from which on a GPU the minute that compiling takes is won back."""


def device() -> Literal["cuda", "cpu"]:
    return "cuda" if has_gpu() else "cpu"


def mixed(precision: Literal["auto", "f32", "bf16"]) -> bool:
    """Whether to compute in bfloat16 where that is safe (autocast)."""
    if precision == "auto":
        return device() == "cuda" or converted.has_bf16()
    return precision == "bf16"


def placed(network: nn.Module) -> nn.Module:
    """The network on this machine's device; on a GPU its convolutions have their channels last."""
    if device() == "cpu":
        return network
    for parameter in network.parameters():
        if parameter.ndim == 4:
            parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)
    return network.to("cuda")


def compiled(network: nn.Module, steps: int, lengths: bool) -> Callable[..., Any]:
    """What runs the network: compiled on a GPU where so many steps pay for it. lengths: inputs vary."""
    if device() == "cpu" or steps < COMPILED_FROM:
        return network
    runs: Callable[..., Any] = torch.compile(network, dynamic=lengths)
    return runs


def threads(key: Any, run: Callable[[], object]) -> int:
    """Threads with which `run` is quickest: fewer than all cores only where that is clearly quicker.

    Settled once for `key` (plain JSON of all that shapes the work) on this machine and kept, since the
    number of threads may change the last bits of a result. Where others are at work on the machine
    meanwhile, or where it does not say so, all its cores.
    """
    cores = engine.cores()
    if cores == 1:
        return 1
    work = {
        "work": key,
        "rounds": _ROUNDS,
        "processor": converted.processor(),
        "cores": cores,
        "torch": version("torch"),
    }
    return int(paths.kept("threads", work, lambda: {"threads": _quickest(cores, run)})["threads"])


def _quickest(cores: int, run: Callable[[], object]) -> int:
    """The candidates take turns, so that a slow spell of the machine meets all of them."""
    counts = [cores]
    while counts[-1] > 1:
        counts.append(counts[-1] // 2)
    for count in counts:
        _seconds(count, run)  # the first run makes what later ones find made
    begun, before = time.perf_counter(), _others_s()
    rounds = [[_seconds(count, run) for count in counts] for _ in range(_ROUNDS)]
    after = _others_s()
    if before is None or after is None or after - before > _QUIET * (time.perf_counter() - begun):
        return cores
    best = 0
    for place in range(1, len(counts)):
        if all(seconds[place] < _CLEARLY * seconds[best] for seconds in rounds):
            best = place
    return counts[best]


def _seconds(count: int, run: Callable[[], object]) -> float:
    torch.set_num_threads(count)
    started = time.perf_counter()
    run()
    return time.perf_counter() - started


def _others_s() -> float | None:
    """Seconds of processor time that went to anything but this process, from any start; None: not known."""
    try:
        with Path("/proc/stat").open(encoding="ascii") as file:
            # user, nice, system, idle, waiting, interrupts twice, stolen by other machines
            ticks = [int(one) for one in file.readline().split()[1:9]]
    except (OSError, ValueError):
        return None
    return (sum(ticks) - sum(ticks[3:5])) / os.sysconf("SC_CLK_TCK") - time.process_time()


@contextmanager
def roomy() -> Iterator[None]:
    """Freed memory stays with the process inside; the caller's number of threads is put back at the end.

    glibc hands large blocks back to the system when they are freed, and every step of a training would
    ask for them again page by page: 10 to 60% of its time.
    """
    libc, before = _glibc(), torch.get_num_threads()
    torch.set_num_threads(engine.cores())
    if libc is not None:
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEEP)
    try:
        yield
    finally:
        torch.set_num_threads(before)
        if libc is not None:
            libc.mallopt(_M_MMAP_MAX, _MMAP_MAX_DEFAULT)
            libc.mallopt(_M_TRIM_THRESHOLD, _TRIM_DEFAULT)
            libc.malloc_trim(0)


@cache
def _glibc() -> ctypes.CDLL | None:
    if not sys.platform.startswith("linux"):
        return None
    try:
        libc = ctypes.CDLL("libc.so.6")
        return libc if hasattr(libc, "mallopt") and hasattr(libc, "malloc_trim") else None
    except OSError:
        return None
