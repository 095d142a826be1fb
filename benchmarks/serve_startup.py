"""Seconds until `graft serve` answers with 1,000 artefacts, and until its first prediction.

Usage: python benchmarks/serve_startup.py [FOLDER] [STARTS]
"""

import sys
import time
from pathlib import Path

import common
import serve_common


def main() -> None:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("/tmp/graftwork-thousand")
    starts = int(sys.argv[2]) if len(sys.argv) > 2 else 7
    names, photo = serve_common.thousand(root), serve_common.photos(1)[0]
    serve_common.alone()
    started: list[float] = []
    listed, first = [], []
    for _ in range(starts):
        with serve_common.served(root, started=started) as site:
            begin = time.perf_counter()
            page = site.ask(site.request("GET", "/v1/models?limit=1"))
            assert page["items"], page
            listed.append(started[-1] + time.perf_counter() - begin)
            site.ask(site.predict(names[-1], photo))
            first.append(started[-1] + time.perf_counter() - begin)
    figures = {
        "artefacts": len(names),
        "ready": common.median(started),
        "ready_worst": max(started),
        "first_listing": common.median(listed),
        "first_prediction": common.median(first),
    }
    common.record("serve_startup", figures, {"ready": 5.0})


if __name__ == "__main__":
    main()
