"""What this machine gives a training: threads, memory that stays, its precision, its device."""

import ctypes
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from importlib.metadata import version
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
_TRIES = 4
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
    number of threads may change the last bits of a result.
    """
    cores = engine.cores()
    if cores == 1:
        return 1
    work = {"work": key, "processor": converted.processor(), "cores": cores, "torch": version("torch")}
    return int(paths.kept("threads", work, lambda: {"threads": _quickest(cores, run)})["threads"])


def _quickest(cores: int, run: Callable[[], object]) -> int:
    best, least = cores, _seconds(cores, run)
    count = cores // 2
    while count:
        seconds = _seconds(count, run)
        if seconds < _CLEARLY * least:
            best, least = count, seconds
        count //= 2
    return best


def _seconds(count: int, run: Callable[[], object]) -> float:
    """The least of a few tries, which what else the machine does disturbs least."""
    torch.set_num_threads(count)
    found = []
    for _ in range(_TRIES):
        started = time.perf_counter()
        run()
        found.append(time.perf_counter() - started)
    return min(found)


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
