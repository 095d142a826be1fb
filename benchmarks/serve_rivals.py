"""Twenty tasks on one backbone against a plain FastAPI + transformers server: throughput and memory.

Rivals are one process a model (all twenty running), and one process that loads the model that a request
names in place of the last. All get the same photos in the same order, each task equally often, in turns.
Usage: python benchmarks/serve_rivals.py [FOLDER] [ROUNDS] [SECONDS]
"""

import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import common
import serve_common
from serve_common import Clients, Tally

TASKS = 20
LABELS = 10
CONNECTIONS = 32
TARGETS = {"throughput_ratio": 5, "memory_ratio": 5}
Address = tuple[str, int]


def make_copies(folder: Path) -> list[str]:
    """The source with a head of its own for each task, as full fine-tuning leaves it."""
    import torch
    from transformers import AutoImageProcessor, AutoModelForImageClassification

    source = common.MODELS / serve_common.SOURCE
    processor = AutoImageProcessor.from_pretrained(source)
    names = [f"task{i}" for i in range(TASKS)]
    for i, name in enumerate(names):
        torch.manual_seed(i)
        model = AutoModelForImageClassification.from_pretrained(
            source, num_labels=LABELS, ignore_mismatched_sizes=True
        )
        model.save_pretrained(folder / name)
        processor.save_pretrained(folder / name)
    return names


@contextmanager
def rival(copies: Path, model: str | None = None) -> Iterator[tuple[Address, psutil.Process]]:
    """One rival server. A process of many gets one thread, which is the best for them on few cores."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    command = [sys.executable, "-m", "uvicorn", "rival_server:app", "--port", str(port), "--no-access-log"]
    extra = {} if model is None else {"RIVAL_MODEL": model, "RIVAL_THREADS": "1"}
    env = {**os.environ, "RIVAL": str(copies), "HF_HUB_OFFLINE": "1", **extra}
    process = subprocess.Popen(
        [*command, "--log-level", "error"], cwd=Path(__file__).parent, env=env, stderr=subprocess.DEVNULL
    )
    try:
        yield ("127.0.0.1", port), psutil.Process(process.pid)
    finally:
        process.kill()
        process.wait()


def await_up(address: Address) -> None:
    for _ in range(1_200):
        try:
            socket.create_connection(address, 1).close()
            return
        except OSError:
            time.sleep(0.1)
    raise TimeoutError(f"nothing listens at {address}")


def rival_request(address: Address, name: str, photo: bytes) -> bytes:
    head = (
        f"POST /predict/{name} HTTP/1.1\r\nHost: {address[0]}:{address[1]}\r\nContent-Type: image/jpeg\r\n"
        f"Content-Length: {len(photo)}\r\n\r\n"
    )
    return head.encode() + photo


def main() -> None:
    root = Path(sys.argv[1]) if len(sys.argv) > 1 else Path("/tmp/graftwork-thousand")
    rounds, seconds = (int(sys.argv[2]) if len(sys.argv) > 2 else 3), float((sys.argv + [""] * 4)[3] or 15)
    ours = serve_common.thousand(root)[:TASKS]
    photos = serve_common.photos(2_000, seed=6)
    order = np.random.default_rng(7).integers(0, TASKS, len(photos))
    serve_common.alone()
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        names = make_copies(folder)
        many = [stack.enter_context(rival(folder, name)) for name in names]
        swapping = stack.enter_context(rival(folder))
        site = stack.enter_context(serve_common.served(root, "--workers", "0"))
        clients = stack.enter_context(Clients())
        for address, _ in [*many, swapping]:
            await_up(address)
        pairs = list(zip(order, photos, strict=True))
        sides: dict[str, tuple[Any, list[bytes]]] = {
            "graftwork": (site.address, [site.predict(ours[i], photo) for i, photo in pairs]),
            "process_per_model": (
                [many[i][0] for i in order],
                [rival_request(many[i][0], names[i], photo) for i, photo in pairs],
            ),
            "swap_per_request": (
                swapping[0],
                [rival_request(swapping[0], names[i], photo) for i, photo in pairs],
            ),
        }
        for addresses, requests in sides.values():
            some = addresses if isinstance(addresses[0], str) else addresses[:60]
            clients.drive(some, requests[:60], 4).result()
        found: dict[str, list[Tally]] = {side: [] for side in sides}
        for _ in range(rounds):
            for side, (addresses, requests) in sides.items():
                found[side].append(clients.drive(addresses, requests, CONNECTIONS, seconds=seconds).result())
        memory = {
            "graftwork": site.pss(),
            "process_per_model": serve_common.pss([process for _, process in many]),
            "swap_per_request": serve_common.pss([swapping[1]]),
        }
    for tallies in found.values():
        assert all(set(tally.answered) == {200} for tally in tallies), tallies
    rate = {side: common.median([tally.rate for tally in tallies]) for side, tallies in found.items()}
    rivals = [side for side in sides if side != "graftwork"]
    figures = {
        "tasks": TASKS,
        "connections": CONNECTIONS,
        "clients": serve_common.CLIENTS,
        "requests_per_second": rate,
        "memory_pss_mb": {side: round(used / 1e6, 1) for side, used in memory.items()},
        "throughput_ratio": {side: round(rate["graftwork"] / rate[side], 2) for side in rivals},
        "memory_ratio": {side: round(memory[side] / memory["graftwork"], 2) for side in rivals},
        "rounds": {side: [tally.shown() for tally in tallies] for side, tallies in found.items()},
    }
    common.record("serve_rivals", figures, TARGETS)


if __name__ == "__main__":
    main()
