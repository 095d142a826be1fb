"""`full` on sst2 with MiniLM, three epochs, against transformers' Trainer with the same settings, in one run.

The same rate, epochs and batch size on both sides; Trainer at its defaults (float32, padded by batch) with
its own batch of 8 and with ours, and at its best (bfloat16, grouped by length). Three epochs of the slow
arms would take an hour, so each arm trains on the same ROWS training rows drawn at random, the arms taking
turns; what three epochs take follows from rows a second. With --accuracy, both sides at their best train on
all rows for three epochs, and test accuracy is counted; results/full_accuracy.json has that.
Where the trees of real data are: GRAFT_TEST_DATA.
"""

import os
import sys
import tempfile
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import common

ROWS, TURNS, EPOCHS, SEED = 768, 3, 3, 0
TARGETS = {
    "speed against defaults": 2.5,
    "speed against its best settings": 1.0,
    "accuracy": "not lower than Trainer's at its best",
}


def ours(bench: Any, basis: Any, index: Any, epochs: int) -> dict[str, Any]:
    """One training of the strategy on the rows at `index`; seconds are those of its steps."""
    from graftwork.records import silent
    from graftwork.strategies.full import Full
    from graftwork.strategies.tuning import Options

    model = Full(options=Options(epochs=epochs)).fit(bench.task(index), basis, silent)
    settings = model.settings
    held = settings["held_rows"]
    seconds = sum(settings["seconds_an_epoch"])
    return {"rows": (len(index) - held) * epochs, "seconds": seconds, "options": settings["options"]} | {
        "accuracy": accuracy(bench, model.answer(bench.dataset.rows.take(bench.test)).probabilities)
        if epochs > 1
        else None
    }


def accuracy(bench: Any, scores: Any) -> float:
    return float((scores.argmax(1) == bench.codes[bench.test]).mean())


def trainer(
    bench: Any, source: Path, index: Any, options: dict[str, Any], epochs: int, **arguments: Any
) -> dict[str, Any]:
    """The same by transformers' Trainer; seconds from its first step to its last."""
    from transformers import (
        AutoModelForSequenceClassification,
        AutoTokenizer,
        DataCollatorWithPadding,
        Trainer,
        TrainerCallback,
        TrainingArguments,
    )

    class Clock(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *args: Any, **given: Any) -> None:
            self.begun = time.perf_counter()

        def on_train_end(self, *args: Any, **given: Any) -> None:
            self.seconds = time.perf_counter() - self.begun

    tokenizer = AutoTokenizer.from_pretrained(source)

    def encoded(rows: Any) -> list[dict[str, Any]]:
        texts = [bench.dataset.rows.column.read(int(i)).decode() for i in rows]
        found = tokenizer(texts, truncation=True, max_length=256)["input_ids"]
        return [
            {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": int(bench.codes[i])}
            for ids, i in zip(found, rows, strict=True)
        ]

    import torch

    torch.manual_seed(SEED)
    model = AutoModelForSequenceClassification.from_pretrained(source, num_labels=2)
    clock = Clock()
    with tempfile.TemporaryDirectory() as folder:
        said = TrainingArguments(
            output_dir=folder, num_train_epochs=epochs, learning_rate=options["rate"], seed=SEED,
            report_to="none", save_strategy="no", logging_strategy="no", disable_tqdm=True, **arguments,
        )  # fmt: skip
        collator = DataCollatorWithPadding(tokenizer)
        run = Trainer(model, said, train_dataset=encoded(index), data_collator=collator, callbacks=[clock])
        run.train()
        found = {"rows": len(index) * epochs, "seconds": clock.seconds, "accuracy": None}
        if epochs > 1:
            found["accuracy"] = accuracy(bench, run.predict(encoded(bench.test)).predictions)
    return found


def arms(batch: int) -> dict[str, dict[str, Any]]:
    """Arguments of Trainer, arm by arm."""
    return {
        "Trainer, its defaults": {"per_device_train_batch_size": 8},
        "Trainer, its defaults, our batch size": {"per_device_train_batch_size": batch},
        "Trainer, its best": best(batch),
    }


def best(batch: int) -> dict[str, Any]:
    return {
        "per_device_train_batch_size": batch,
        "bf16": True,
        "use_cpu": True,
        "train_sampling_strategy": "group_by_length",
    }


def timed(bench: Any, basis: Any, source: Path) -> dict[str, Any]:
    """Rows a second of each arm, turn by turn, and what EPOCHS epochs would take."""
    from graftwork.strategies.options import defaults

    train = bench.learning[bench.dataset.split.parts[bench.learning] == "train"]
    drawn = np.sort(np.random.default_rng(SEED).permutation(train)[:ROWS])
    options = asdict(defaults("full", "text", len(bench.learning)))
    rates: dict[str, list[float]] = {}
    for _ in range(TURNS):
        found = ours(bench, basis, drawn, 1)
        rates.setdefault("ours", []).append(found["rows"] / found["seconds"])
        for name, arguments in arms(options["batch"]).items():
            found = trainer(bench, source, drawn, options, 1, **arguments)
            rates.setdefault(name, []).append(found["rows"] / found["seconds"])
        print({name: round(each[-1], 1) for name, each in rates.items()}, file=sys.stderr)
    figures: dict[str, Any] = {
        name: {
            "rows_per_second": each,
            "median": common.median(each),
            "seconds_of_three_epochs": len(train) * EPOCHS / common.median(each),
        }
        for name, each in rates.items()
    }
    for name in arms(0):
        pairs = zip(rates["ours"], rates[name], strict=True)
        figures[f"times as fast as {name}"] = common.median([mine / theirs for mine, theirs in pairs])
    return {"rows": ROWS, "rows_an_epoch": len(train), "options": options, **figures}


def compared(bench: Any, basis: Any, source: Path) -> dict[str, Any]:
    """Test accuracy of both sides after EPOCHS epochs on all rows; Trainer learns from the same ones."""
    mine = ours(bench, basis, bench.learning, EPOCHS)
    print(mine, file=sys.stderr)
    train = bench.learning[bench.dataset.split.parts[bench.learning] == "train"]
    theirs = trainer(bench, source, train, mine["options"], EPOCHS, **best(mine["options"]["batch"]))
    return {"ours": mine, "Trainer, its best": theirs, "test_rows": len(bench.test)}


def main() -> None:
    import graftwork as gw
    from graftwork import starting
    from graftwork.bench import Bench
    from graftwork.records import silent
    from graftwork.sources import find
    from graftwork.store import remember

    os.environ["HF_HUB_OFFLINE"] = "1"
    with tempfile.TemporaryDirectory() as home:
        os.environ["GRAFT_HOME"] = home
        data = gw.load(str(common.DATA / "sst2"), text="text", label="label")
        ready, _ = starting.ready(data, seed=SEED)
        bench = Bench(ready, "accuracy", SEED, silent)
        source = find("minilm", offline=True)
        basis, _ = starting.opened(ready, source, "", pooling=None, resize=None, notify=silent)
        work, name = (compared, "full_accuracy") if "--accuracy" in sys.argv else (timed, "full")
        figures = work(bench, remember(basis), source.folder)
    common.record(name, {"seed": SEED, "epochs": EPOCHS, **figures}, TARGETS)


if __name__ == "__main__":
    main()
