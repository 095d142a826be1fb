"""Traffic over 1,000 tasks against the same photos asked of one task: throughput and latency.

Each round asks both in turn, the order changing, with the same photos; figures are medians over rounds.
Usage: python benchmarks/serve_mixed.py [FOLDER of artefacts, made where there is none] [ROUNDS] [SECONDS]
"""

import itertools
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

import common
import serve_common
from serve_common import Clients, Site, Tally

PHOTOS = 1_000
CONNECTIONS = 32
TARGETS = {"throughput_ratio": 0.9, "p95_ratio": 1.5}


def main() -> None:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("/tmp/graftwork-thousand")
    rounds, seconds = (int(sys.argv[2]) if len(sys.argv) > 2 else 5), float((sys.argv + [""] * 4)[3] or 15)
    names = serve_common.thousand(root)
    serve_common.alone()
    with serve_common.served(root, "--workers", "0") as site, Clients() as clients:
        opened = open_all(site, clients, names)
        said = compare(site, clients, names, rounds, seconds)
    common.record("serve_mixed", {"tasks": len(names), "opening": opened, **said}, TARGETS)


def open_all(site: Site, clients: Clients, names: list[str]) -> dict[str, Any]:
    """Ask each task once: its head is read, verified and replayed, which later rounds find done."""
    photos = itertools.cycle(serve_common.photos(PHOTOS))
    start = time.perf_counter()
    tally = clients.drive(site.address, [site.predict(one, next(photos)) for one in names], 8).result()
    assert tally.answered[200] == len(names), tally.answered
    return {"seconds": round(time.perf_counter() - start, 1), "p95_ms": round(tally.percentile(95), 1)}


def compare(site: Site, clients: Clients, names: list[str], rounds: int, seconds: float) -> dict[str, Any]:
    photos = serve_common.photos(PHOTOS, seed=1)
    order = np.random.default_rng(2).permutation(len(names))
    over = [site.predict(names[order[i % len(names)]], photo) for i, photo in enumerate(photos)]
    sides = {"thousand": over, "one": [site.predict(names[0], photo) for photo in photos]}
    found: dict[str, list[Tally]] = {"thousand": [], "one": []}
    for turn in range(rounds):
        for side in sorted(sides, reverse=turn % 2 == 0):
            found[side].append(
                clients.drive(site.address, sides[side], CONNECTIONS, seconds=seconds).result()
            )
    for tallies in found.values():
        assert all(set(tally.answered) == {200} and not tally.lost for tally in tallies), tallies
    rate = {side: common.median([tally.rate for tally in tallies]) for side, tallies in found.items()}
    p95 = {
        side: common.median([tally.percentile(95) for tally in tallies]) for side, tallies in found.items()
    }
    return {
        "connections": CONNECTIONS,
        "clients": serve_common.CLIENTS,
        "throughput_ratio": round(rate["thousand"] / rate["one"], 3),
        "p95_ratio": round(p95["thousand"] / p95["one"], 3),
        "rounds": {side: [tally.shown() for tally in tallies] for side, tallies in found.items()},
    }


if __name__ == "__main__":
    main()
