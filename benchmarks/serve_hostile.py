"""A thousand uploads of hostile files while 50 clients predict: is anything answered 500, who waits longer?

Twenty strangers a second send, over four connections, every kind of file that tests/service/hostile.py
makes, in turn: kept as files, made into datasets where they are accepted (a worker inspects them), asked of
a model, and brought as artefacts. Each honest client asks a photo, waits half a second on average, and asks
the next. Rounds without and with the uploads take turns. Usage: python benchmarks/serve_hostile.py [FOLDER]
[UPLOADS] [ROUNDS]
"""

import inspect
import itertools
import json
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import common
import serve_common
from serve_common import Clients, Site, Tally

sys.path.insert(0, str(common.ROOT / "tests" / "service"))
import hostile

HONEST, UPLOADING = 50, 4
PAUSE_S = 0.5
STRANGERS_PER_S = 20.0
HONEST_PARTS = {"png", "zip_of", "class_folders", "gbk_names"}
SUFFIXES = {
    "zip": ".zip", "csv": ".csv", "json": ".json", "parquet": ".parquet", "png": ".jpg", "wav": ".wav",
    "safetensors": ".safetensors", "npy": ".npy", "torch": ".pt",
}  # fmt: skip


def files() -> dict[str, tuple[str, bytes]]:
    """Name of the kind -> name of the file, its content."""
    found = {}
    for kind, make in inspect.getmembers(hostile, inspect.isfunction):
        if kind.startswith("_") or kind in HONEST_PARTS or make.__module__ != hostile.__name__:
            continue
        suffix = next((SUFFIXES[word] for word in SUFFIXES if word in kind), ".zip")
        found[kind] = f"{kind}{suffix}", make()
    return found


def attack(site: Site, name: str, content: bytes, model: str) -> Iterator[tuple[str, int]]:
    """What one stranger does with one file: each request and its status."""
    line = HTTPConnection(*site.address, timeout=120)

    def ask(path: str, body: bytes, media: str) -> Any:
        headers = {"Authorization": f"Bearer {site.key}", "Content-Type": media}
        line.request("POST", path, body, headers)
        answer = line.getresponse()
        said = answer.read()
        return answer.status, json.loads(said) if said else {}

    try:
        status, made = ask(f"/v1/files?name={name}", content, "application/octet-stream")
        yield "files", status
        if status == 201:
            dataset = json.dumps({"name": name, "files": [{"file": made["id"]}]}).encode()
            yield "datasets", ask("/v1/datasets", dataset, "application/json")[0]
            brought = json.dumps({"kind": "import", "file": made["id"], "name": "brought"}).encode()
            yield "jobs", ask("/v1/jobs", brought, "application/json")[0]
        if len(content) < 5_000_000:
            yield "predict", ask(f"/v1/predict?model={model}", content, "image/jpeg")[0]
    finally:
        line.close()


def round_of(
    site: Site,
    clients: Clients,
    honest: list[bytes],
    attacks: Callable[[], Counter[str]] | None,
    seconds: float,
) -> tuple[Tally, Counter[str]]:
    """Honest clients, alone for `seconds` or as long as the attacks take."""
    if attacks is None:
        return clients.drive(site.address, honest, HONEST, seconds=seconds, pause=PAUSE_S).result(), Counter()
    with ThreadPoolExecutor(1) as pool:
        attacking = pool.submit(attacks)
        tally = Tally()
        while not attacking.done():
            some = clients.drive(site.address, honest, HONEST, seconds=5, pause=PAUSE_S).result()
            tally.seconds += some.seconds
            tally.processor_s += some.processor_s
            tally.answered += some.answered
            tally.milliseconds += some.milliseconds
            tally.lost += some.lost
        return tally, attacking.result()


def main() -> None:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("/tmp/graftwork-thousand")
    uploads = int(sys.argv[2]) if len(sys.argv) > 2 else 1_000
    rounds = int(sys.argv[3]) if len(sys.argv) > 3 else 2
    names, photos, kinds = serve_common.thousand(root), serve_common.photos(1_000, seed=8), files()
    serve_common.alone()
    quotas = [f"--quota={name}=none" for name in ("bytes", "jobs", "requests")]
    with serve_common.served(root, *quotas) as site, Clients() as clients:
        honest = [site.predict(names[i % 100], photo) for i, photo in enumerate(photos)]
        clients.drive(site.address, honest, 16).result()
        each = list(itertools.islice(itertools.cycle(kinds.values()), uploads))
        lock = threading.Lock()
        left = [each[i::rounds] for i in range(rounds)]

        def attacks() -> Counter[str]:
            mine, seen = left.pop(), Counter[str]()
            start = time.perf_counter()

            def one(i: int, file: tuple[str, bytes]) -> None:
                time.sleep(max(0.0, start + i / STRANGERS_PER_S - time.perf_counter()))
                for what, status in attack(site, *file, names[0]):
                    with lock:
                        seen[f"{what} {status}"] += 1

            with ThreadPoolExecutor(UPLOADING) as pool:
                list(pool.map(one, range(len(mine)), mine))
            return seen

        alone, under, answered = [], [], Counter[str]()
        for _ in range(rounds):
            alone.append(round_of(site, clients, honest, None, 20)[0])
            tally, seen = round_of(site, clients, honest, attacks, 0)
            under.append(tally)
            answered += seen
        memory = site.pss()
        still = site.ask(site.request("GET", "/healthz"))
    p95 = {side: common.median([one.percentile(95) for one in some]) for side, some in
           (("alone", alone), ("under", under))}  # fmt: skip
    figures = {
        "uploads": uploads,
        "kinds": len(kinds),
        "honest_clients": HONEST,
        "clients": serve_common.CLIENTS + "; the uploads come from another",
        "answered_5xx": sum(n for what, n in answered.items() if what.split()[1].startswith("5")),
        "honest_not_200": sum(
            n for one in [*alone, *under] for status, n in one.answered.items() if status != 200
        ),
        "p95_ratio": round(p95["under"] / p95["alone"], 3),
        "hostile_answers": dict(sorted(answered.items())),
        "alone": [one.shown() for one in alone],
        "under": [one.shown() for one in under],
        "memory_pss_mb": round(memory / 1e6, 1),
        "healthy_after": still,
    }
    common.record("serve_hostile", figures, {"answered_5xx": 0, "p95_ratio": 2.0})


if __name__ == "__main__":
    main()
