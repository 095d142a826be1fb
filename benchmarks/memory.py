"""Anonymous memory of a whole fit at 100,000 generated pictures against 1,000 (width 1280).

Each size runs in a process of its own, which samples its anonymous resident memory (RssAnon) while
`fit` runs on 100,000 (1,000) small generated PNG files: extraction, store, head, scores, report data.
"""

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np

import common

SOURCE = "mobilenet_v2_1.0_224"


def generate(folder: Path, rows: int) -> None:
    """Noise pictures of 16 by 16 in ten classes that differ in their mean colour."""
    from PIL import Image

    rng = np.random.default_rng(0)
    tints = rng.integers(40, 216, (10, 3))
    for code in range(10):
        (folder / f"class{code}").mkdir(parents=True)
    for i in range(rows):
        pixels = np.clip(tints[i % 10] + rng.normal(0, 60, (16, 16, 3)), 0, 255).astype(np.uint8)
        Image.fromarray(pixels).save(folder / f"class{i % 10}" / f"{i}.png", compress_level=1)


def measure(rows: int) -> None:
    """Run in the child: print the peak anonymous memory in MB and the seconds of each stage."""
    import os

    peak, done = [0.0], threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            said = Path("/proc/self/status").read_text()
            anonymous = next(line for line in said.splitlines() if line.startswith("RssAnon"))
            peak[0] = max(peak[0], int(anonymous.split()[1]) / 1024)

    with tempfile.TemporaryDirectory() as work:
        os.environ["GRAFT_HOME"] = f"{work}/home"
        generate(Path(work) / "data", rows)
        from graftwork.transfer import fit

        threading.Thread(target=watch, daemon=True).start()
        start = time.perf_counter()
        outcome = fit(f"{work}/data", source=str(common.MODELS / SOURCE), baselines="none")
        seconds = {**outcome.result.seconds, "all": time.perf_counter() - start}
        done.set()
    print(json.dumps({"rows": rows, "peak_mb": peak[0], "seconds": seconds}))


def main() -> None:
    found = []
    for rows in (1_000, int(sys.argv[1]) if len(sys.argv) > 1 else 100_000):
        run = subprocess.run(
            [sys.executable, __file__, "--child", str(rows)], capture_output=True, text=True, check=True
        )
        found.append(json.loads(run.stdout.splitlines()[-1]))
    figures = {"runs": found, "growth_mb": found[1]["peak_mb"] - found[0]["peak_mb"]}
    common.record("memory", figures, {"growth_mb": 500})


if __name__ == "__main__":
    if sys.argv[1:2] == ["--child"]:
        measure(int(sys.argv[2]))
    else:
        main()
