"""A source of our own: the compact network, trained on a labelled source task and written as a folder."""

import hashlib
import json
import shutil
import tempfile
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from graftwork import sources
from graftwork.backbones.compact import VERSION, Preparation, weights
from graftwork.errors import RequestError
from graftwork.networks import CompactConfig, CompactNet
from graftwork.records import Notify, silent
from graftwork.rows import PLURAL, UNLABELLED, Dataset, IntArray, Rows
from graftwork.seen import SEEN, digests
from graftwork.sources import COMPACT, Source
from graftwork.strategies.scratch import (
    FEWEST_TO_HOLD_OUT,
    STEPS,
    Amount,
    Made,
    made_of_pictures,
    plan_for,
    suited,
)
from graftwork.training import Fed, hold_out, seeded, train


@dataclass(frozen=True)
class Pretraining:
    """What a source was trained on, and how well it then did; kept in its config.json.

    accuracy: on `held` rows that were not learnt from (`part`: "test", or "validation", by whose loss
    the epoch was chosen, so a little too high). digest: of the digests of the rows learnt from.
    """

    dataset: str
    labels: tuple[str, ...]
    rows: int
    digest: str
    part: str
    held: int
    accuracy: float | None
    epochs: int
    seconds: float
    seed: int
    augment: str
    created: str


def pretrain(
    dataset: Dataset,
    folder: Path,
    *,
    seed: int = 0,
    seconds: float | None = None,
    augment: Amount = "light",
    notify: Notify = silent,
) -> Source:
    """Train the compact network on `dataset`'s labelled rows and write it to `folder` as a source.

    seconds: wall-clock limit of the training, None for as long as its epochs take. Test rows are not
    learnt from. Raises RequestError where the dataset holds no pictures or fewer than two classes, or
    where `folder` is in use; Unreadable where a row cannot be read.
    """
    _check(dataset, folder)
    labelled = dataset.take(np.flatnonzero(dataset.target.codes != UNLABELLED).astype(np.int64))
    learnt = labelled.take(labelled.split.index("train", "validation"))
    config, preparation = suited(learnt.rows)
    with seeded(seed):
        made = made_of_pictures(learnt.rows, config, preparation, len(dataset.labels), augment, notify)
    held = _held(learnt, seed)
    rows = len(learnt) - int(held.sum())
    plan = plan_for(rows, STEPS["image"], seconds, seed=seed, held=bool(held.any()))
    training = train(
        made.network, Fed(made.batches, made.augment), learnt.target.codes, plan, held=held, notify=notify
    )
    made.network.cpu()  # its features run there, wherever it learnt
    part, tested, accuracy = _accuracy(made, labelled, learnt, held)
    seen = digests(learnt.rows)
    about = Pretraining(
        dataset.name, dataset.labels, len(learnt), hashlib.sha256("\n".join(seen).encode()).hexdigest(),
        part, tested, accuracy, training.kept, round(training.seconds, 1), seed, augment,
        datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip
    assert isinstance(made.network, CompactNet)
    return write(
        folder, config, preparation, weights(made.network), asdict(about), card(folder.name, about), seen
    )


def write(
    folder: Path,
    config: CompactConfig,
    preparation: Preparation,
    arrays: dict[str, NDArray[np.float32]],
    pretraining: dict[str, Any],
    readme: str,
    seen: list[str],
) -> Source:
    """Write a source folder under a temporary name beside its place, then rename it."""
    from safetensors.numpy import save

    described = {
        "model_type": COMPACT,
        "version": VERSION,
        "network": config.to_json(),
        "preparation": asdict(preparation),
        "pretraining": pretraining,
    }
    folder.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        text = json.dumps(described, indent=1, ensure_ascii=False)
        (unfinished / "config.json").write_text(text + "\n", "utf-8")
        (unfinished / "README.md").write_text(readme, "utf-8")
        (unfinished / SEEN).write_text("".join(f"{digest}\n" for digest in seen), "ascii")
        # not save_file: it gives a file that only its owner may read
        (unfinished / "model.safetensors").write_bytes(save(arrays))
        unfinished.chmod(0o755)
        if folder.is_dir():
            folder.rmdir()  # `_check` saw that it is empty
        unfinished.replace(folder)
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)
    return sources.read(folder, name=folder.name)


def card(name: str, about: Pretraining) -> str:
    """The README of a source."""
    labels = ", ".join(about.labels[:20]) + (
        f" and {len(about.labels) - 20} more" if len(about.labels) > 20 else ""
    )
    score = "no rows were held out, so there is no score"
    if about.accuracy is not None:
        score = f"accuracy {about.accuracy:.3f} on {about.held:,} {about.part} rows that were not learnt from"
    return f"""# {name}

A compact image network, made by `graft pretrain`. Use it with `graft fit DATA -o NAME.graft --source FOLDER`.

- trained on: {about.dataset}, {about.rows:,} rows of {len(about.labels)} classes ({labels})
- digest of these rows: {about.digest}
- {score}
- {about.epochs} epochs, {about.seconds} s, seed {about.seed}, augmentation {about.augment}, {about.created}

`{SEEN}` lists the beginnings of the SHA-256 digests of the rows learnt from, so that a later verdict can say
whether a target task's rows were among them. The licence of these weights is for you to state: it depends on
the data.
"""


def _check(dataset: Dataset, folder: Path) -> None:
    if dataset.kind != "image":
        raise RequestError(f"these rows are {PLURAL[dataset.kind]}; graft pretrain trains on pictures")
    if len(np.unique(dataset.target.codes[dataset.target.codes != UNLABELLED])) < 2:
        raise RequestError(
            "these rows carry fewer than two labels; expected a source task of two classes or more"
        )
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise RequestError(f"{folder} exists already; name a new folder with -o, or remove this one")


def _held(learnt: Dataset, seed: int) -> NDArray[np.bool_]:
    validation = learnt.split.parts == "validation"
    if validation.any():
        return np.asarray(validation)
    if len(learnt) < FEWEST_TO_HOLD_OUT:
        return np.zeros(len(learnt), dtype=bool)
    groups = np.arange(len(learnt)) if learnt.groups is None else learnt.groups
    return hold_out(learnt.target.codes, groups, 0.1, seed)


def _accuracy(
    made: Made, labelled: Dataset, learnt: Dataset, held: NDArray[np.bool_]
) -> tuple[str, int, float | None]:
    """(part, rows, accuracy) on the test part, else on the rows held out."""
    test = labelled.take(labelled.split.index("test"))
    if len(test):
        rows, codes, part = test.rows, test.target.codes, "test"
    else:
        index = np.flatnonzero(held).astype(np.int64)
        rows, codes, part = learnt.rows.take(index), learnt.target.codes[index], "validation"
    if not len(codes):
        return part, 0, None
    return part, len(codes), _share_right(made, rows, codes)


def _share_right(made: Made, rows: Rows, codes: IntArray) -> float:
    features = made.backbone().features(rows)
    readable = np.setdiff1d(np.arange(len(rows)), list(features.unreadable))
    with torch.inference_mode():
        answers = made.network.classifier(torch.from_numpy(features.matrix[readable])).argmax(1).numpy()
    return float(np.mean(answers == codes[readable]))
