"""The whole thing on data that come with the installation; what is printed is what came out."""

import shutil
import tempfile
from collections.abc import Callable
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from graftwork import wire
from graftwork.datasets import load
from graftwork.errors import UnknownName
from graftwork.records import Notify, silent
from graftwork.rows import Dataset
from graftwork.transfer import Outcome, fit
from graftwork.verdict import in_words

Say = Callable[[str], None]


def run(
    which: str, out: Path | None = None, *, seed: int = 0, notify: Notify = silent, say: Say = print
) -> Any:
    """Run one demo and return its JSON; raises UnknownName for another name than digits or text."""
    if which not in DEMOS:
        raise UnknownName("demo", which, DEMOS)
    story, dataset, source = DEMOS[which](seed)
    say(story)
    cold, warm = _cold_and_warm(dataset, source, seed, notify)
    folder = cold.save(out or Path(f"demo-{which}.graft"))
    result = cold.result
    say("")
    for name, one in {f"transfer ({result.source.name})": result.assessment, **result.baselines}.items():  # type: ignore[union-attr]  # both demos transfer
        score = one.scores[result.metric]
        say(f"  {name:28} {result.metric} {score.value:.3f}  (95% {score.low:.3f} to {score.high:.3f})")
    say("")
    if result.verdict is not None:
        say(in_words(result.verdict))
    for name, outcome in (("cold", cold), ("warm", warm)):
        say(_timing(name, outcome))
    say(f"\nmodel   {folder}\nreport  {folder / 'report.html'}")
    return {"artefact": str(folder), **wire.result(result), "warm": wire.result(warm.result)["seconds"]}


def digits(seed: int) -> tuple[str, Dataset, str]:
    """scikit-learn's handwritten digits with three labels a class, the rest held out."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    pictures = [(image * (255 / 16)).astype("uint8") for image in digits.images]
    labels = [str(label) for label in digits.target]
    dataset = _few(load(pictures, labels=labels, name="handwritten digits"), 3, seed)
    story = (
        "Target: 1,797 handwritten digits, 8 by 8 pixels; 3 a class are learnt from, the rest is the test.\n"
        "Source: glyphs, a small network trained on rendered letters. It has never seen a digit."
    )
    return story, dataset, "glyphs"


def text(seed: int) -> tuple[str, Dataset, str]:
    """240 short support messages in six classes, eight labels a class, the rest held out."""
    with as_file(files("graftwork") / "packaged" / "messages.csv") as path:
        dataset = _few(load(path, text="text", label="label", name="support messages"), 8, seed)
    story = (
        "Target: 240 support messages in six classes; 8 a class are learnt from, the rest is the test.\n"
        "Source: minilm, a small sentence encoder."
    )
    return story, dataset, "minilm"


DEMOS: dict[str, Callable[[int], tuple[str, Dataset, str]]] = {"digits": digits, "text": text}


def _few(dataset: Dataset, per_class: int, seed: int) -> Dataset:
    """`per_class` labels a class to learn from; every other row becomes the test part."""
    from dataclasses import replace

    import numpy as np

    rng = np.random.default_rng(seed)
    parts = np.full(len(dataset), "test", dtype="<U10")
    for code in range(len(dataset.labels)):
        parts[rng.permutation(np.flatnonzero(dataset.target.codes == code))[:per_class]] = "train"
    return replace(dataset, split=replace(dataset.split, parts=parts, origin="given"))


def _cold_and_warm(dataset: Dataset, source: str, seed: int, notify: Notify) -> tuple[Outcome, Outcome]:
    """The same fit twice on a store of its own, so that the first run is cold whatever was run before."""
    import os

    home = Path(tempfile.mkdtemp(prefix="graft-demo-"))
    before = os.environ.get("GRAFT_HOME")
    os.environ["GRAFT_HOME"] = str(home)
    try:
        return (
            fit(dataset, source=source, seed=seed, notify=notify),
            fit(dataset, source=source, seed=seed, notify=notify),
        )
    finally:
        if before is None:
            del os.environ["GRAFT_HOME"]
        else:
            os.environ["GRAFT_HOME"] = before
        shutil.rmtree(home, ignore_errors=True)


def _timing(name: str, outcome: Outcome) -> str:
    seconds, made = outcome.result.seconds, outcome.result.extraction
    features = "" if made is None else f"{made.computed:,} features computed, {made.reused:,} reused; "
    return (
        f"{name} run: {features}features {seconds['features']:.2f} s, head {seconds['head']:.2f} s, "
        f"with baselines and report {seconds['total']:.1f} s"
    )
