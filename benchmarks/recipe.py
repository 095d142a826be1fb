"""Features + head + test scores against the textbook recipe: the frozen backbone run in every epoch.

The rival: 10 epochs over train (and validation) photos of clothing10, each batch decoded by Pillow,
run through the frozen network in evaluation mode and through a dense layer that Adam trains; then the
test photos. At its default (batches of 32, contiguous) one epoch is timed and multiplied by ten, since
each epoch costs the same; at its best (the quickest of several batch sizes in channels-last) too.
Ours: cold (empty store) and warm, `--baselines none`, everything from the folder to test scores.
"""

import os
import tempfile
import time

import numpy as np

import common


def ours(home: str) -> tuple[float, float]:
    os.environ["GRAFT_HOME"] = home
    from graftwork.transfer import fit

    start = time.perf_counter()
    outcome = fit(str(common.DATA / "clothing10"), source=str(common.MODELS / SOURCE), baselines="none")
    seconds = outcome.result.seconds
    shown = ("learning curve", "report data", "familiarity")
    return time.perf_counter() - start - sum(seconds[one] for one in shown), outcome.scores["accuracy"].value


def recipe_rate(batch: int, channels_last: bool, photos: int) -> float:
    """Seconds a photo of the rival's training step, decoding included."""
    import torch
    from PIL import Image
    from transformers import AutoImageProcessor, AutoModel

    folder = common.MODELS / SOURCE
    processor = AutoImageProcessor.from_pretrained(folder)
    network = AutoModel.from_pretrained(folder).eval()
    if channels_last:
        network = network.to(memory_format=torch.channels_last)
    head = torch.nn.Linear(1280, 10)
    adam = torch.optim.Adam(head.parameters())
    paths = sorted((common.DATA / "clothing10" / "train").rglob("*.jpg"))
    chosen = [paths[i] for i in np.random.default_rng(0).permutation(len(paths))[:photos]]
    names = sorted({path.parent.name for path in paths})
    start = time.perf_counter()
    for first in range(0, photos, batch):
        part = chosen[first : first + batch]
        pixels = processor([Image.open(path).convert("RGB") for path in part], return_tensors="pt")[
            "pixel_values"
        ]
        if channels_last:
            pixels = pixels.to(memory_format=torch.channels_last)
        with torch.no_grad():
            features = network(pixels).pooler_output.flatten(1)
        loss = torch.nn.functional.cross_entropy(
            head(features), torch.tensor([names.index(path.parent.name) for path in part])
        )
        adam.zero_grad()
        loss.backward()
        adam.step()
    return (time.perf_counter() - start) / photos


SOURCE = "mobilenet_v2_1.0_224"


def main() -> None:
    import transformers

    transformers.logging.set_verbosity_error()
    rows, test, epochs = 1817 + 341, 372, 10
    cold, warm, accuracy = [], [], 0.0
    with tempfile.TemporaryDirectory() as first:
        ours(first)  # imports and the parity decision, which a machine pays once
    for _ in range(3):
        with tempfile.TemporaryDirectory() as home:
            seconds, accuracy = ours(home)
            cold.append(seconds)
            warm += [ours(home)[0] for _ in range(3)]
    default = common.median([recipe_rate(32, False, 192) for _ in range(3)])
    tried = {
        batch: common.median([recipe_rate(batch, True, 192) for _ in range(3)]) for batch in (1, 2, 4, 8, 16)
    }
    best = min(tried.values())
    passes = rows * epochs + test
    figures = {
        "ours_cold_seconds": cold,
        "ours_warm_seconds": warm,
        "accuracy": accuracy,
        "recipe_default_seconds": default * passes,
        "recipe_best_seconds": best * passes,
        "recipe_best_batch": min(tried, key=lambda batch: tried[batch]),
        "cold_ratio_to_best": best * passes / common.median(cold),
        "warm_ratio_to_best": best * passes / common.median(warm),
        "cold_ratio_to_default": default * passes / common.median(cold),
        "warm_ratio_to_default": default * passes / common.median(warm),
    }
    common.record("recipe", figures, {"cold_ratio_to_best": 15, "warm_ratio_to_best": 100})


if __name__ == "__main__":
    main()
