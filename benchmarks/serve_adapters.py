"""Tasks tuned by low-rank pairs on one text source: memory and mixed traffic against one of them.

Every task has pairs of its own beside the attention of MiniLM, of the size that training gives them (made,
as a hundred trainings would take hours), and a linear head. A server answers the same distinct texts in
turn of one task, and of all mixed; its memory is held against that of a server of one task. Beside it, one
text alone through the engine: pairs as inputs against merged.
Usage: python benchmarks/serve_adapters.py [FOLDER of artefacts] [--tasks 100] [--requests 600] [--rounds 3]
"""

import argparse
import json
import shutil
import tempfile
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

import common
import serve_common
from graftwork import artefact
from graftwork.backbones import open_backbone
from graftwork.backbones.base import labelled_matrix
from graftwork.backbones.learnt import KEY, LORA_A, LORA_B, digest_of_learnt
from graftwork.backbones.pretrained import Pretrained
from graftwork.datasets import load
from graftwork.heads import LinearHead
from graftwork.model import Model
from graftwork.rows import Rows, Texts
from graftwork.sources import find
from graftwork.strategies.lora import targets
from graftwork.unknown import Familiarity
from serve_common import Clients, Site, Tally

RANK, LABELS = 8, ("bad", "good")
TARGETS = {"rate": 0.9, "alone": 1.25}


def main() -> None:
    said = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    said.add_argument("folder", type=Path, nargs="?", default=Path("/tmp/graftwork-adapters"))
    said.add_argument("--tasks", type=int, default=100)
    said.add_argument("--requests", type=int, default=600)
    said.add_argument("--rounds", type=int, default=3)
    given = said.parse_args()
    texts = sentences(given.requests)
    names = make(given.folder, given.tasks)
    with tempfile.TemporaryDirectory() as place:
        shutil.copytree(given.folder / f"{names[0]}.graft", Path(place) / f"{names[0]}.graft")
        one = measure(Path(place), names[:1], texts, 1)
    many = measure(given.folder, names, texts, given.rounds)
    figures = {
        "tasks": given.tasks, "requests": given.requests, "clients": serve_common.CLIENTS,
        "pss_mb": {"one": one["pss_mb"], "all": many.pop("pss_mb")}, **many,
        "alone_ms": alone(texts[:100]),
    }  # fmt: skip
    pss = figures["pss_mb"]
    figures["ratio"] = {
        "pss": round(pss["all"] / pss["one"], 3),
        "rate": round(many["mixed"]["rate"] / many["one"]["rate"], 3),
        "p95": round(many["mixed"]["p95_ms"] / many["one"]["p95_ms"], 3),
        "alone": round(figures["alone_ms"]["inputs"] / figures["alone_ms"]["merged"], 3),
    }
    figures["megabytes_a_task"] = round((pss["all"] - pss["one"]) / max(1, given.tasks - 1), 2)
    common.record("serve_adapters", figures, TARGETS)


def sentences(count: int) -> list[str]:
    rows = load(common.DATA / "sst2").rows
    found = [rows.column.read(i).decode() for i in range(len(rows))]
    return list(dict.fromkeys(found))[:count]


def make(folder: Path, count: int) -> list[str]:
    """Names of the artefacts, made where they are missing."""
    names = [f"task-{i:03}" for i in range(count)]
    missing = [i for i, name in enumerate(names) if not (folder / f"{name}.graft").exists()]
    if missing:
        rows = texts_of(sentences(300))
        source = open_backbone(find("minilm"), rows)
        assert isinstance(source, Pretrained)
        layers, first = targets(source.network(), source.blocks(), "attention", "minilm"), None
        for i in missing:
            learnt = pairs(source, layers, i)
            first = source.tuned(learnt, rows) if first is None else first
            # the path is one that agreed; to settle it a hundred times would show nothing
            tuned = replace(first, config={**first.config, KEY: digest_of_learnt(learnt)}, learnt=learnt)
            save(folder / f"{names[i]}.graft", tuned, rows, i)
    return names


def pairs(source: Pretrained, layers: Sequence[str], seed: int) -> dict[str, np.ndarray]:
    rng, found = np.random.default_rng(seed), {}
    for name in layers:
        width = source.width  # of each projection of MiniLM's attention
        found[f"{name}.weight{LORA_A}"] = rng.uniform(-1, 1, (RANK, width)).astype(np.float32) / width**0.5
        found[f"{name}.weight{LORA_B}"] = rng.normal(0, 0.01, (width, RANK)).astype(np.float32)
    return found


def texts_of(texts: Sequence[str]) -> Rows:
    return Rows([str(i) for i in range(len(texts))], {"text": Texts(texts)})


def save(folder: Path, backbone: Pretrained, rows: Rows, seed: int) -> None:
    rng = np.random.default_rng(seed)
    features = labelled_matrix(backbone, rows.take(np.arange(100)))
    head = LinearHead.of(LABELS, rng.normal(size=(backbone.width, 2)), np.zeros(2))
    artefact.save(
        Model(backbone, head, Familiarity.fit(features, rng.integers(0, 2, 100))), folder, strategy="lora",
        result={}, versions={}, created="2026-01-01T00:00:00+00:00", report="", probe=rows.take(np.arange(4)),
    )  # fmt: skip


def measure(root: Path, names: Sequence[str], texts: Sequence[str], rounds: int) -> dict[str, Any]:
    """Rounds of one task's requests and of all tasks' in turn, on one server in which all are open."""
    with serve_common.served(root, "--workers", "0") as site, Clients() as clients:
        mixed = [question(site, names[i % len(names)], text) for i, text in enumerate(texts)]
        same = [question(site, names[0], text) for text in texts]
        start = time.perf_counter()
        clients.drive(site.address, mixed[: len(names)], 8).result()
        found: dict[str, Any] = {"opening_s": round(time.perf_counter() - start, 2)}
        tallies: dict[str, list[Tally]] = {"one": [], "mixed": []}
        for _ in range(rounds):
            for name, requests in (("one", same), ("mixed", mixed)):
                tallies[name].append(clients.drive(site.address, requests, 32).result())
                assert tallies[name][-1].answered[200] == len(texts), tallies[name][-1].answered
        held = site.ask(site.request("GET", "/v1/backbones", media="application/json"))
        for name, several in tallies.items():
            found[name] = {
                "rate": round(common.median([one.rate for one in several]), 1),
                "rates": [round(one.rate, 1) for one in several],
                "p50_ms": round(common.median([one.percentile(50) for one in several]), 2),
                "p95_ms": round(common.median([one.percentile(95) for one in several]), 2),
            }
        return {**found, "networks": len(held["items"]), "pss_mb": round(site.pss() / 1e6, 1)}


def question(site: Site, name: str, text: str) -> bytes:
    body = json.dumps({"model": name, "inputs": [text]}).encode()
    return site.request("POST", "/v1/predict", body, "application/json")


def alone(texts: Sequence[str]) -> dict[str, float]:
    """Milliseconds of one text through the engine, in turn: the source, merged pairs, pairs as inputs."""
    from graftwork.backbones.learnt import PAIRS

    source = open_backbone(find("minilm"), None)
    assert isinstance(source, Pretrained)
    layers = targets(source.network(), source.blocks(), "attention", "minilm")
    inputs = source.tuned(pairs(source, layers, 0), None)
    merged = replace(inputs, config={name: one for name, one in inputs.config.items() if name != PAIRS})
    seconds: dict[str, list[float]] = {"source": [], "merged": [], "inputs": []}
    for i, text in enumerate(texts):
        for name, backbone in (("source", source), ("merged", merged), ("inputs", inputs)):
            start = time.perf_counter()
            backbone.features(texts_of([text]))
            if i >= 10:
                seconds[name].append(time.perf_counter() - start)
    return {name: round(common.median(one) * 1e3, 3) for name, one in seconds.items()}


if __name__ == "__main__":
    main()
