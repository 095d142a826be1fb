"""What this machine gives a training: memory that stays with the process, its precision, its device."""

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Literal

import torch

from graftwork.backbones import converted, engine
from graftwork.backbones.engine import has_gpu

_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4
_MMAP_MAX_DEFAULT = 65_536
_KEEP, _TRIM_DEFAULT = 2**31 - 1, 128 * 1024


def device() -> Literal["cuda", "cpu"]:
    return "cuda" if has_gpu() else "cpu"


def mixed(precision: Literal["auto", "f32", "bf16"]) -> bool:
    """Whether to compute in bfloat16 where that is safe (autocast)."""
    if precision == "auto":
        return device() == "cuda" or converted.has_bf16()
    return precision == "bf16"


@contextmanager
def roomy() -> Iterator[None]:
    """Freed memory stays with the process inside, and threads are as many as there are cores.

    glibc hands large blocks back to the system when they are freed, and every step of a training would
    ask for them again page by page: 10 to 60% of its time.
    """
    libc, threads = _glibc(), torch.get_num_threads()
    torch.set_num_threads(engine.cores())
    if libc is not None:
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, _KEEP)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
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
