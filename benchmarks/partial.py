"""Partial tuning of mobilenet_v2_1.0_224 on clothing10: what an epoch costs, and what it gains on the probe.

`python benchmarks/partial.py epoch`: an epoch of the last two blocks' training, from stored activations,
against the same training by a plain torch loop that runs the frozen part each time. The rival has its
photos decoded in memory and is asked at several batch sizes, layouts and precisions; its quickest counts.
Both train with the same optimiser, schedule and start over three seeds; accuracy is on validation rows.

`python benchmarks/partial.py accuracy`: five seeds of strategy `partial` as it comes, against the probe,
on the test part; the interval of the mean difference is a bootstrap over the test part's groups. With
seeds named behind it, these are added to what the result holds.
"""

import json
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

import common

SOURCE = "mobilenet_v2_1.0_224"
SEEDS, EPOCHS, BLOCKS = (0, 1, 2), 3, 2
RATE, DECAY, SMOOTHING, WARMUP, SLOWER = 3e-4, 0.02, 0.1, 0.1, 0.7


@cache
def ready(seed: int):  # type: ignore[no-untyped-def]
    """(bench, basis, task) of clothing10 and the source."""
    from graftwork import starting
    from graftwork.bench import Bench
    from graftwork.records import silent
    from graftwork.sources import find
    from graftwork.store import remember

    data, _ = starting.ready(str(common.DATA / "clothing10"), seed=seed)
    bench = Bench(data, "accuracy", seed, silent)
    source = find(str(common.MODELS / SOURCE), offline=True)
    backbone, _ = starting.opened(data, source, "", pooling=None, resize=None, notify=silent)
    return bench, remember(backbone), bench.task(bench.learning)


# --- what an epoch costs


class Plain(nn.Module):
    """The rival's network: transformers' own, its last blocks learning, a linear layer on the mean."""

    def __init__(self, start: Any) -> None:
        super().__init__()
        from transformers import AutoModel

        self.network = AutoModel.from_pretrained(common.MODELS / SOURCE).eval()
        self.head = nn.Linear(1280, 10)
        with torch.no_grad():
            heat = start.config["temperature"]
            self.head.weight.copy_(torch.from_numpy(start.arrays["weights"].T / heat))
            self.head.bias.copy_(torch.from_numpy(start.arrays["bias"] / heat))

    def frozen(self, pictures: torch.Tensor) -> torch.Tensor:
        hidden = self.network.conv_stem(pictures)
        for layer in self.network.layer[:-BLOCKS]:
            hidden = layer(hidden)
        return hidden

    def forward(self, hidden: torch.Tensor) -> torch.Tensor:
        for layer in self.network.layer[-BLOCKS:]:
            hidden = layer(hidden)
        found: torch.Tensor = self.head(self.network.conv_1x1(hidden).mean((2, 3)))
        return found

    def groups(self) -> list[dict[str, Any]]:
        """AdamW's groups, as ours: earlier blocks slower, no decay of vectors."""
        last = [*self.network.conv_1x1.parameters(), *self.head.parameters()]
        blocks = self.network.layer[-BLOCKS:]
        parts = [(last, 1.0)] + [
            (list(block.parameters()), SLOWER ** (BLOCKS - place)) for place, block in enumerate(blocks)
        ]
        return [
            {"params": [p for p in members if (p.ndim > 1) == matrix], "weight_decay": decay, "share": share}
            for members, share in parts
            for matrix, decay in ((True, DECAY), (False, 0.0))
        ]


class Rival:
    """The plain loop. pixels: (rows, 3, 224, 224), normalised as the source asks, as bytes until needed."""

    def __init__(self, pixels: torch.Tensor, codes: torch.Tensor, start: Any) -> None:
        self.pixels, self.codes = pixels, codes
        self.network = Plain(start)
        self.optimiser = torch.optim.AdamW(self.network.groups(), lr=RATE, fused=True)

    def inputs(self, index: Any, last: bool) -> torch.Tensor:
        found = (self.pixels[index].float() / 255 - 0.5) / 0.5
        return found.contiguous(memory_format=torch.channels_last) if last else found

    def step(self, index: Any, rate: float, last: bool, mixed: bool) -> None:
        for group in self.optimiser.param_groups:
            group["lr"] = rate * group["share"]
        with torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            with torch.no_grad():
                hidden = self.network.frozen(self.inputs(index, last))
            logits = self.network(hidden)
        loss = F.cross_entropy(logits.float(), self.codes[index], label_smoothing=SMOOTHING)
        self.optimiser.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_([p for g in self.optimiser.param_groups for p in g["params"]], 1.0)
        self.optimiser.step()

    def accuracy(self, index: Any, last: bool, mixed: bool) -> float:
        right = 0
        with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled=mixed):
            for part in np.array_split(index, -(-len(index) // 32)):
                logits = self.network(self.network.frozen(self.inputs(part, last)))
                right += int((logits.argmax(1) == self.codes[part]).sum())
        return right / len(index)


def formats() -> Iterator[tuple[int, bool, bool]]:
    """(batch, channels last, bf16)."""
    yield from (
        (batch, last, mixed) for mixed in (True, False) for last in (True, False) for batch in (8, 16, 32)
    )


def rival_formats(rival: Rival, rows: Any) -> dict[str, float]:
    """Rows a second of each way to run the rival's step, the median of three after one to warm up."""
    rates = {}
    for batch, last, mixed in formats():
        rival.network.to(memory_format=torch.channels_last if last else torch.contiguous_format)
        seconds = common.timed(lambda: rival.step(rows[:batch], 1e-9, last, mixed), 4)[1:]  # noqa: B023
        rates[f"{batch} {'last' if last else 'first'} {'bf16' if mixed else 'f32'}"] = batch / common.median(
            seconds
        )
    return rates


def epoch() -> dict[str, Any]:
    from graftwork.records import silent
    from graftwork.strategies.classifier import Classifier, started
    from graftwork.strategies.options import SHARED
    from graftwork.strategies.tuning import layers_of, plan_of, tunable
    from graftwork.training import machine, train
    from graftwork.training.optimising import schedule

    figures: dict[str, Any] = {"ours": [], "rival": [], "ours_accuracy": [], "rival_accuracy": []}
    _, basis, task = ready(0)
    backbone = tunable("partial", basis)
    held, learnt = np.flatnonzero(task.validation), np.flatnonzero(~task.validation)
    begun = time.perf_counter()
    backbone.cut(backbone.blocks()[-BLOCKS], task.rows, [None], lambda other: other)
    figures["extraction_seconds"] = time.perf_counter() - begun
    photos = backbone.examples(task.rows)
    pixels = torch.empty(len(task.codes), 3, 224, 224, dtype=torch.uint8)
    for part in np.array_split(np.arange(len(pixels)), 40):
        pixels[part] = photos.batch(part)[0].permute(0, 3, 1, 2).to(torch.uint8)
    codes = torch.from_numpy(task.codes)
    options = replace(
        SHARED, epochs=EPOCHS, rate=RATE, decay=DECAY, smoothing=SMOOTHING, warmup=WARMUP, still=True
    )
    start = started(task, basis, task.validation, silent)
    with machine.roomy():
        figures["rival_rows_per_second"] = rival_formats(Rival(pixels, codes, start), learnt)
    best = max(figures["rival_rows_per_second"], key=figures["rival_rows_per_second"].__getitem__)
    batch, last, mixed = next(
        one for one in formats()
        if best == f"{one[0]} {'last' if one[1] else 'first'} {'bf16' if one[2] else 'f32'}"
    )  # fmt: skip
    figures["rival_best"] = best
    for seed in SEEDS:
        cut = backbone.cut(backbone.blocks()[-BLOCKS], task.rows, [None], basis.beside)
        ours = Classifier(cut.network, start)
        plan = replace(plan_of(options, replace(task, seed=seed)), keep="loss")
        done = train(
            ours, cut.examples, task.codes, plan, held=task.validation,
            layers=layers_of(cut, backbone.blocks(), SLOWER),
        )  # fmt: skip
        figures["ours"] += [one.seconds for one in done.epochs if one.number]
        figures["ours_accuracy"].append(done.epochs[-1].score)
        rival = Rival(pixels, codes, start)
        rival.network.to(memory_format=torch.channels_last if last else torch.contiguous_format)
        rng, steps = np.random.default_rng(seed), -(-len(learnt) // batch)
        with machine.roomy():
            for number in range(EPOCHS):
                began = time.perf_counter()
                for place, index in enumerate(np.array_split(rng.permutation(learnt), steps)):
                    share = (number * steps + place) / (EPOCHS * steps)
                    rival.step(index, RATE * schedule(share, WARMUP), last, mixed)
                figures["rival"].append(time.perf_counter() - began)
            figures["rival_accuracy"].append(rival.accuracy(held, last, mixed))
        print(json.dumps(figures), flush=True)
    figures["start_accuracy"] = bench_accuracy(start, basis, task, held)
    figures["times_faster"] = common.median(figures["rival"]) / common.median(figures["ours"])
    return figures


def bench_accuracy(start: Any, basis: Any, task: Any, held: Any) -> float:
    from graftwork.backbones.base import labelled_matrix

    logits = start.logits(labelled_matrix(basis, task.rows.take(held)))
    return float((logits.argmax(1) == task.codes[held]).mean())


# --- what it gains


def accuracy(before: dict[str, Any], seed: int) -> dict[str, Any]:
    """This seed's fits, added to those of `before`."""
    from graftwork.records import silent
    from graftwork.strategies.partial import Partial
    from graftwork.strategies.probe import Probe

    bench, basis, _ = ready(0)
    rows, truth = bench.dataset.rows.take(bench.test), bench.codes[bench.test]
    fits = dict(before.get("fits", {}))
    task = replace(bench.task(bench.learning), seed=seed)
    fit: dict[str, Any] = {}
    for recipe in (Partial(), Probe()):
        begun = time.perf_counter()
        model = recipe.fit(task, basis, silent)
        seconds = time.perf_counter() - begun
        right = model.answer(rows).probabilities.argmax(1) == truth
        said = "".join(map(str, right.astype(int)))
        fit[recipe.name] = {"accuracy": float(right.mean()), "seconds": seconds, "right": said}
        if recipe.name == "partial":
            kept = ("kept_epoch", "refit_epochs", "share_of_tuned", "bytes", "training_curve", "options")
            fit["settings"] = {name: model.settings[name] for name in kept}
    print(seed, {name: fit[name]["accuracy"] for name in ("partial", "probe")}, flush=True)
    fits[str(seed)] = fit
    return {"fits": fits, **pooled(list(fits.values()), bench.groups[bench.test])}


def pooled(fits: Sequence[dict[str, Any]], groups: Any) -> dict[str, float]:
    """Means over the fits, and the interval of the mean difference: a bootstrap over groups of rows."""
    from graftwork.intervals import percentile, resampled_sums

    def right(name: str) -> Any:
        return np.array([[int(one) for one in fit[name]["right"]] for fit in fits], dtype=np.float64).mean(0)

    gains = right("partial") - right("probe")
    sums = resampled_sums(np.stack([gains, np.ones_like(gains)], 1), groups, 0)
    low, high = percentile(sums[:, 0] / sums[:, 1], len(np.unique(groups)), 0.95)
    return {
        "mean_partial": float(right("partial").mean()), "mean_probe": float(right("probe").mean()),
        "difference": float(gains.mean()), "low": low, "high": high, "seeds": len(fits),
    }  # fmt: skip


def main() -> None:
    part, *seeds = sys.argv[1:] or ["all"]
    path = common.ROOT / "benchmarks" / "results" / "partial.json"
    figures = json.loads(path.read_text())["figures"] if path.exists() else {}
    targets = {"times_faster": 3.0, "mean_partial": 0.90, "low": 0.0}
    if part in ("all", "epoch"):
        figures["epoch"] = epoch()
        common.record("partial", figures, targets)
    if part in ("all", "accuracy"):
        known = figures.get("accuracy", {}) if seeds else {}
        for seed in [int(seed) for seed in seeds] or range(5):
            known = figures["accuracy"] = accuracy(known, seed)
            common.record("partial", figures, targets)


if __name__ == "__main__":
    main()
