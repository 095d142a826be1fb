"""What every benchmark shares: where real data lie, repeated timing, and one JSON file a benchmark."""

import json
import os
import platform
import statistics
import subprocess
import time
from collections.abc import Callable, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
DATA = Path(os.environ.get("GRAFT_TEST_DATA", ROOT.parent / "shared" / "data"))
MODELS = Path(os.environ.get("GRAFT_TEST_MODELS", ROOT.parent / "shared" / "models"))


def timed(work: Callable[[], Any], repeats: int) -> list[float]:
    """Wall-clock seconds of each of `repeats` calls."""
    seconds = []
    for _ in range(repeats):
        start = time.perf_counter()
        work()
        seconds.append(time.perf_counter() - start)
    return seconds


def median(values: list[float]) -> float:
    return statistics.median(values)


def record(name: str, figures: Mapping[str, Any], targets: Mapping[str, Any]) -> None:
    """Print the figures and write benchmarks/results/NAME.json with commit, machine and versions."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=True
    ).stdout.strip()
    said = {
        "benchmark": name,
        "figures": figures,
        "targets": targets,
        "commit": commit,
        "machine": {"processor": _processor(), "cores": os.cpu_count(), "system": platform.system()},
        "versions": {one: version(one) for one in ("torch", "openvino", "transformers", "numpy")},
    }
    text = json.dumps(said, indent=1, ensure_ascii=False)
    print(text)
    folder = ROOT / "benchmarks" / "results"
    folder.mkdir(exist_ok=True)
    (folder / f"{name}.json").write_text(text + "\n", encoding="utf-8")


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "unknown")
