"""How many pictures a second are distorted for training, at 224 x 224, beside the same done by Pillow.

Ours takes a batch of 32 as a network gets it, by one and by two threads. The rival is the usual way: one
picture after another, a random resized crop, a mirror and a change of brightness, contrast and saturation
("light"), by as many threads. Noise serves as pictures: what they show changes no step's cost.
"""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import torch
from PIL import Image, ImageEnhance, ImageOps

import common
from graftwork.training import distortion

SIDE, BATCH, REPEATS, SEED = 224, 32, 9, 0
TARGETS = {"images_a_second": "more than Pillow's at the same number of threads"}


def by_pillow(pixels: np.ndarray, seed: int) -> np.ndarray:
    """One picture, distorted about as "light" is."""
    rng = np.random.default_rng(seed)
    picture = Image.fromarray(pixels)
    side = SIDE * np.sqrt(rng.uniform(0.6, 1))
    left, top = rng.uniform(0, SIDE - side, 2)
    box = (left, top, left + side, top + side)
    picture = picture.resize((SIDE, SIDE), Image.Resampling.BILINEAR, box=box)
    if rng.random() < 0.5:
        picture = ImageOps.mirror(picture)
    for enhance in (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color):
        picture = enhance(picture).enhance(1.15 ** rng.uniform(-1, 1))
    return np.asarray(picture, dtype=np.float32)


def main() -> None:
    rng = np.random.default_rng(SEED)
    pixels = rng.integers(0, 256, (BATCH, SIDE, SIDE, 3), dtype=np.uint8)
    pictures = torch.from_numpy(pixels).float()
    found: dict[str, dict[str, int]] = {}
    for threads in (1, 2):
        torch.set_num_threads(threads)
        mine = {}
        for amount in ("light", "strong", "randaugment"):
            distort = distortion("image", amount)
            assert distort is not None
            generator = torch.Generator().manual_seed(SEED)
            distort((pictures,), generator)
            seconds = common.timed(lambda: distort((pictures,), generator), REPEATS)  # noqa: B023
            mine[amount] = round(BATCH / common.median(seconds))
        with ThreadPoolExecutor(threads) as pool:
            seconds = common.timed(lambda: list(pool.map(by_pillow, pixels, range(BATCH))), REPEATS)
        mine["light, Pillow"] = round(BATCH / common.median(seconds))
        found[f"{threads} thread{'s' if threads > 1 else ''}"] = mine
    figures = {"images_a_second": found, "batch": BATCH, "side": SIDE, "repeats": REPEATS, "seed": SEED}
    common.record("distortions", figures, TARGETS)


if __name__ == "__main__":
    main()
