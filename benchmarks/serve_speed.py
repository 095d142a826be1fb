"""The server against its own engine: photos a second at saturation, and one photo on an idle server.

The engine's side is `Backbone.features` on the same encoded photos in another process, nothing stored: all
at once, and one at a time. Sides take turns. Usage: python benchmarks/serve_speed.py [FOLDER] [ROUNDS]
"""

import multiprocessing
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import Any

import common
import serve_common
from serve_common import Clients

PHOTOS = 1_500
SINGLES = 150
CONNECTIONS = 48
TARGETS = {"saturation_ratio": 0.7, "single_p50_ratio": 1.6}
_engine: Any = None


def open_engine(photos: list[bytes]) -> None:
    global _engine
    from graftwork.artefact import probe_rows
    from graftwork.backbones import open_backbone
    from graftwork.sources import find

    _engine = open_backbone(find(str(common.MODELS / serve_common.SOURCE)), probe_rows("image", photos))
    _engine.features(probe_rows("image", photos))


def together(photos: list[bytes]) -> float:
    """Photos a second of the engine."""
    from graftwork.artefact import probe_rows

    rows = probe_rows("image", photos)
    start = time.perf_counter()
    _engine.features(rows)
    return len(photos) / (time.perf_counter() - start)


def singly(photos: list[bytes]) -> float:
    """Median milliseconds of one photo."""
    from graftwork.artefact import probe_rows

    rows = [probe_rows("image", [photo]) for photo in photos]
    return 1e3 * common.median([common.timed(lambda one=one: _engine.features(one), 1)[0] for one in rows])


def main() -> None:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("/tmp/graftwork-thousand")
    rounds = int(sys.argv[2]) if len(sys.argv) > 2 else 5
    name = serve_common.thousand(root)[0]
    photos = serve_common.photos(PHOTOS + SINGLES, seed=3)
    many, few = photos[:PHOTOS], photos[PHOTOS:]
    serve_common.alone()
    context = multiprocessing.get_context("spawn")
    with (
        ProcessPoolExecutor(1, mp_context=context) as engine,
        serve_common.served(root, "--workers", "0") as site,
        Clients() as clients,
    ):
        engine.submit(open_engine, photos[:256]).result()
        asked = {
            key: [site.predict(name, photo) for photo in some] for key, some in (("many", many), ("few", few))
        }
        clients.drive(site.address, asked["many"][:200], CONNECTIONS).result()
        engine_rates, engine_ms, tallies, singles = [], [], [], []
        for _ in range(rounds):
            engine_rates.append(engine.submit(together, many).result())
            tallies.append(clients.drive(site.address, asked["many"], CONNECTIONS).result())
            engine_ms.append(engine.submit(singly, few).result())
            singles.append(clients.drive(site.address, asked["few"], 1).result())
        figures = site.ask(site.request("GET", "/metrics"))
    assert all(set(tally.answered) == {200} for tally in [*tallies, *singles])
    rate, alone = common.median([one.rate for one in tallies]), common.median(engine_rates)
    p50, ms = common.median([one.percentile(50) for one in singles]), common.median(engine_ms)
    said = {
        "connections": CONNECTIONS,
        "clients": serve_common.CLIENTS,
        "saturation_ratio": round(rate / alone, 3),
        "single_p50_ratio": round(p50 / ms, 3),
        "engine": {"photos_per_second": engine_rates, "single_ms": engine_ms},
        "server": {"saturated": [one.shown() for one in tallies], "single": [one.shown() for one in singles]},
        "serving": [line for line in figures.splitlines() if "batch" in line and line[0] != "#"],
    }
    common.record("serve_speed", said, TARGETS)


if __name__ == "__main__":
    main()
