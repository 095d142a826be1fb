"""Make the packaged source `glyphs`: render letters, train the compact network to tell them, write it.

    python recipes/glyphs/train.py [--fonts /usr/share/fonts] [--out src/graftwork/packaged/glyphs]

With --hold-out every fifth letter of many fonts is kept from training and few-shot tasks on these say
how good the features are: that is how the settings below were chosen. Digits are never looked at.
"""

import argparse
import hashlib
import sys
import time
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

sys.path.insert(0, str(Path(__file__).parent))
from distort import SIZE, distort
from render import Letters, letters

from graftwork.backbones.compact import Preparation, weights
from graftwork.networks import CompactNet, channels_last, compact_config
from graftwork.pretraining import write
from graftwork.records import Progress
from graftwork.sources import Source
from graftwork.training import Fed, Plan, seeded, train

ROOT = Path(__file__).parents[2]
CONFIG = compact_config(1, SIZE, cells=4)
PREPARATION = Preparation("ink")
PLAN = Plan(epochs=4, batch=64, rate=3e-3, decay=0.02, warmup=0.03, smoothing=0.1)
LEAST_PICTURES = 16
"""A letter of few fonts is drawn as often as one of this many."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--fonts", type=Path, default=Path("/usr/share/fonts"))
    parser.add_argument("--out", type=Path, default=ROOT / "src/graftwork/packaged/glyphs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--epochs", type=int, default=PLAN.epochs)
    parser.add_argument(
        "--hold-out", action="store_true", help="judge on letters not trained on; writes nothing"
    )
    chosen = parser.parse_args()
    drawn = letters(chosen.fonts)
    print(
        f"{len(drawn.codes):,} pictures of {len(drawn.names):,} letters from {len(drawn.files)} fonts",
        flush=True,
    )
    held = every_fifth(drawn) if chosen.hold_out else np.empty(0, np.int64)
    begun = time.process_time()
    network = learn(drawn, held, chosen.seed, chosen.epochs)
    if chosen.hold_out:
        print(f"3 labels a class, 10 unseen letters: {few_shot(network, drawn, held):.4f}")
        return
    source = ship(network, drawn, chosen.out, chosen.seed, chosen.epochs, time.process_time() - begun)
    print(f"written to {source.folder}, weights {source.weights_sha256}")


def learn(drawn: Letters, held: NDArray[np.int64], seed: int, epochs: int) -> CompactNet:
    """The network trained on every letter that is not held."""
    names, codes = np.unique(drawn.codes[~np.isin(drawn.codes, held)], return_inverse=True)
    index = np.flatnonzero(~np.isin(drawn.codes, held))
    copies = np.ceil(LEAST_PICTURES / np.bincount(codes)).astype(int)[codes]
    index, codes = np.repeat(index, copies), np.repeat(codes, copies)
    pictures = torch.from_numpy(drawn.pictures)
    with seeded(seed):
        network = CompactNet(CONFIG, len(names))
    channels_last(network)
    begun = time.perf_counter()
    said = [begun]

    def say(step: Progress) -> None:
        if time.perf_counter() - said[0] >= 10:
            said[0] = time.perf_counter()
            print(f"step {step.done} of {step.total}, {step.note}, {said[0] - begun:.0f} s", flush=True)

    training = train(
        network,
        Fed(lambda rows: pictures[index[rows]][:, None] / 255, distort),
        codes.astype(np.int64),
        replace(PLAN, epochs=epochs, seed=seed),
        notify=say,
    )
    print("loss by epoch:", ", ".join(f"{epoch.training:.3f}" for epoch in training.epochs))
    return network


def every_fifth(drawn: Letters) -> NDArray[np.int64]:
    """Codes of the letters that are kept from training: every fifth of those with 20 pictures or more."""
    return np.flatnonzero(np.bincount(drawn.codes) >= 20)[::5]


def few_shot(network: CompactNet, drawn: Letters, held: NDArray[np.int64], draws: int = 40) -> float:
    """Mean accuracy of the nearest centroid (cosine, centred) from three labels of each of ten letters."""
    index = np.flatnonzero(np.isin(drawn.codes, held))
    generator = torch.Generator().manual_seed(99)
    with torch.inference_mode():
        pictures = torch.from_numpy(drawn.pictures[index])[:, None] / 255
        features = torch.cat([network.features(distort(p, generator)) for p in pictures.split(64)]).numpy()
    codes, found = drawn.codes[index], []
    for seed in range(draws):
        rng = np.random.default_rng(seed)
        ways = rng.permutation(held)[:10]
        train_rows = [rng.permutation(np.flatnonzero(codes == way))[:3] for way in ways]
        flat = np.concatenate(train_rows)
        test = np.setdiff1d(np.flatnonzero(np.isin(codes, ways)), flat)
        unit = features / np.linalg.norm(features, axis=1, keepdims=True)
        unit = unit - unit[flat].mean(0)
        centres = np.stack([unit[rows].mean(0) for rows in train_rows])
        centres /= np.linalg.norm(centres, axis=1, keepdims=True)
        found.append(np.mean(ways[(unit[test] @ centres.T).argmax(1)] == codes[test]))
    return float(np.mean(found))


def ship(network: CompactNet, drawn: Letters, out: Path, seed: int, epochs: int, seconds: float) -> Source:
    """Write the source folder, in place of what lies there."""
    about = {
        "dataset": "letters rendered by recipes/glyphs; no digits",
        "classes": len(drawn.names),
        "letters": "".join(drawn.names),
        "fonts": len(drawn.files),
        "rows": len(drawn.codes),
        "digest": hashlib.sha256(drawn.pictures.tobytes()).hexdigest(),
        "epochs": epochs,
        "seconds": round(seconds, 1),
        "seed": seed,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    if out.is_dir():
        for file in out.iterdir():
            file.unlink()
    # the pictures exist only in here, so no row of anybody's data can be among them
    return write(out, CONFIG, PREPARATION, weights(network), about, README.format(**about), seen=[])


README = """---
license: apache-2.0
---
# glyphs

A compact network that has learnt to tell {classes:,} letters of many scripts from each other, under strong
distortions ({rows:,} pictures, 32 x 32 grey in, 192 features out). It has seen no digit. It is meant for
small grey characters and drawings, not for photos.

- made by: `python recipes/glyphs/train.py`, seed {seed}, {epochs} epochs, {seconds} s of one core, {created}
- rendered from {fonts} font files of Debian's packages; `recipes/glyphs/packages.txt` lists their licences.
  The fonts themselves are no part of these weights.
- digest of the rendered pictures: {digest}
- preparation: the ground (the median of a picture's border) becomes black, the ink white, whatever they
  were; the square around the ink, with a margin of 7% on each side, is resized to 32 x 32
"""


if __name__ == "__main__":
    main()
