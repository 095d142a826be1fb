"""What this machine can do, as the engine and the store see it."""

import os
import platform
import shutil
import sqlite3
import tempfile
from collections.abc import Mapping
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from graftwork import paths, store
from graftwork.errors import ArtefactError, MissingExtra

HUB_TIMEOUT_S = 3.0
_PACKAGES = ("graftwork", "numpy", "torch", "transformers", "openvino", "scikit-learn", "pillow", "pyarrow")
_FEATURES = ("avx2", "avx512f", "avx512_bf16", "avx512_vnni", "amx_bf16", "amx_int8", "asimd", "bf16")
SAFE_SQLITE = (3, 51, 3)
"""Before it the write-ahead log can lose data when two connections are open."""


def examine(*, offline: bool = False) -> Mapping[str, Any]:
    """Everything `graft doctor` says, as plain JSON. With `offline` no connection is opened."""
    return {
        "python": platform.python_version(),
        "system": platform.platform(terse=True),
        "versions": {name: _version(name) for name in _PACKAGES},
        "processor": _processor(),
        "memory_bytes": _memory(),
        "gpu": _gpu(),
        "engine": _engine(),
        "hub": _hub(offline or paths.offline()),
        "store": _store(),
        "sqlite": {"version": sqlite3.sqlite_version, "safe_log": sqlite3.sqlite_version_info >= SAFE_SQLITE},
        "sources": {name: _source(name) for name in ("glyphs", "minilm")},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> dict[str, Any]:
    from graftwork.backbones import converted, engine

    return {"name": converted.processor(), "cores": engine.cores(), "features": _flags(Path("/proc/cpuinfo"))}


def _flags(cpuinfo: Path) -> list[str]:
    """Those processor features that matter for speed; empty where the system does not list them."""
    if not cpuinfo.is_file():
        return []
    for line in cpuinfo.read_text("utf-8", "replace").splitlines():
        key, _, listed = line.partition(":")
        if key.strip() in ("flags", "Features"):
            return [name for name in _FEATURES if name in listed.split()]
    return []


def _memory() -> int:
    import psutil

    return int(psutil.virtual_memory().total)


def _gpu() -> str | None:
    from graftwork.backbones import engine

    if not engine.has_gpu():
        return None
    import torch

    return str(torch.cuda.get_device_name(0))


def _engine() -> dict[str, str]:
    """The path that is tried first; a source whose numbers disagree takes the next one."""
    from graftwork.backbones import engine

    runtime, precision = engine.candidates(None)[0]
    return {"runtime": runtime, "precision": precision, "version": engine.runtime_version(runtime)}


def _hub(offline: bool) -> str:
    """reachable, unreachable or offline (not asked)."""
    if offline:
        return "offline"
    from urllib.error import HTTPError
    from urllib.request import urlopen

    address = os.environ.get("HF_ENDPOINT", "https://huggingface.co")
    try:
        with urlopen(address, timeout=HUB_TIMEOUT_S):
            return "reachable"
    except HTTPError:
        return "reachable"  # it answered, if only to refuse
    except (OSError, ValueError):
        return "unreachable"


def _store() -> dict[str, Any]:
    place = store.folder()
    there = next(parent for parent in (place, *place.parents) if parent.exists())
    return {
        "folder": str(place),
        "bytes": store.info(place)["bytes"],
        "writable": _writable(there),
        "free_bytes": shutil.disk_usage(there).free,
        "limit_bytes": store.LIMIT_BYTES,
    }


def _writable(folder: Path) -> bool:
    """Tried, not asked: permissions alone do not know of a read-only disk."""
    try:
        with tempfile.TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


def _source(name: str) -> str:
    """present, or why not."""
    from graftwork.sources import find

    try:
        find(name)
    except (MissingExtra, ArtefactError) as error:
        return str(error)
    return "present"
