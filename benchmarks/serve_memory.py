"""Memory of a server of 1,000 tasks on one backbone against a server of one of them, after the same photos.

Each server (with its reading processes, without workers) answers 1,000 distinct photos: of one task, or one
of each. Counted: PSS, and anonymous memory, which the system can take back from nobody. 1,000 heads are the
files that hold them: heads and what they are familiar with; what may be is 1.1 times one task and they.
Usage: python benchmarks/serve_memory.py [FOLDER of artefacts, made where there is none]
"""

import shutil
import sys
import tempfile
from pathlib import Path
from typing import Any

import common
import serve_common
from serve_common import Clients, Site

TARGETS = {"of_what_may_be": 1.0}
MB = 1e6


def main() -> None:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("/tmp/graftwork-thousand")
    names = serve_common.thousand(root)
    with tempfile.TemporaryDirectory() as place:
        shutil.copytree(root / f"{names[0]}.graft", Path(place) / f"{names[0]}.graft")
        one = measure(Path(place), names[:1] * len(names))
    many = measure(root, names)
    parts = ("head.safetensors", "familiarity.safetensors")
    heads = sum((root / f"{name}.graft" / part).stat().st_size for name in names for part in parts) / MB
    figures = {
        "tasks": len(names),
        "one": one,
        "thousand": many,
        "heads_mb": round(heads, 1),
        "of_what_may_be": {kind: round(many[kind] / (1.1 * one[kind] + heads), 3) for kind in one},
        "ratio": {kind: round(many[kind] / one[kind], 3) for kind in one},
        "kilobytes_a_task": {kind: round((many[kind] - one[kind]) / len(names) * 1e3, 1) for kind in one},
    }
    common.record("serve_memory", figures, TARGETS)


def measure(root: Path, asked: list[str]) -> dict[str, float]:
    """PSS and anonymous memory in MB, after a distinct photo for each name asked."""
    photos = serve_common.photos(len(asked))
    with serve_common.served(root, "--workers", "0") as site, Clients() as clients:
        requests = [site.predict(name, photo) for name, photo in zip(asked, photos, strict=True)]
        tally = clients.drive(site.address, requests, 8).result()
        assert tally.answered[200] == len(asked), tally.answered
        return memory(site)


def memory(site: Site) -> dict[str, float]:
    found: dict[str, Any] = {"pss_mb": 0.0, "anonymous_mb": 0.0}
    for process in site.processes():
        said = Path(f"/proc/{process.pid}/smaps_rollup").read_text().splitlines()[1:]
        kilobytes = {line.split(":")[0]: int(line.split()[1]) for line in said}
        found["pss_mb"] += kilobytes["Pss"] * 1024 / MB
        found["anonymous_mb"] += kilobytes["Anonymous"] * 1024 / MB
    return {kind: round(value, 1) for kind, value in found.items()}


if __name__ == "__main__":
    main()
