"""SIGTERM under load, again and again: is every request that was accepted answered?

Clients ask photos over connections that are kept alive until they hear 503. A request that was written whole
and got no whole answer is lost. Usage: python benchmarks/serve_sigterm.py [FOLDER] [TIMES]
"""

import sys
import time
from collections import Counter
from pathlib import Path

import numpy as np

import common
import serve_common
from serve_common import Clients

CONNECTIONS = 64


def main() -> None:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("/tmp/graftwork-thousand")
    times = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    names, photos = serve_common.thousand(root)[:50], serve_common.photos(500, seed=4)
    rng = np.random.default_rng(5)
    answered: Counter[int] = Counter()
    lost, refused, took, status = 0, 0, [], set()
    with Clients() as clients:
        for _ in range(times):
            with serve_common.served(root) as site:
                requests = [site.predict(names[i % len(names)], photo) for i, photo in enumerate(photos)]
                clients.drive(site.address, requests[:50], 8).result()
                running = clients.drive(site.address, requests, CONNECTIONS, seconds=60, leave_on=503)
                time.sleep(rng.uniform(0.5, 2.5))
                start = time.perf_counter()
                site.process.terminate()
                status.add(site.process.wait(60))
                took.append(time.perf_counter() - start)
                tally = running.result()
            answered += tally.answered
            lost, refused = lost + tally.lost, refused + tally.refused
    figures = {
        "times": times,
        "connections": CONNECTIONS,
        "clients": serve_common.CLIENTS,
        "answered": {str(code): count for code, count in sorted(answered.items())},
        "lost": lost,
        "refused": refused,
        "exit_status": sorted(status),
        "seconds_to_end": {"median": common.median(took), "worst": max(took)},
    }
    common.record("serve_sigterm", figures, {"lost": 0})


if __name__ == "__main__":
    main()
