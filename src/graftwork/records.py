"""Frozen records that cross modules. They hold what was measured or decided and do nothing."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from graftwork.rows import Kind

FloatArray = NDArray[np.floating]
Metric = Literal["accuracy", "balanced_accuracy", "macro_f1"]


@dataclass(frozen=True)
class Progress:
    """One step of work done; `total` is None where it is not known. `note`: a few words beside it.

    point: where an epoch of a training has just ended, its number, training loss and loss on held rows
    (None where none are held).
    """

    stage: str
    done: int
    total: int | None
    unit: str = "rows"
    note: str = ""
    point: tuple[int, float, float | None] | None = None


Notify = Callable[[Progress], None]


def silent(_: Progress) -> None:
    """The Notify of a caller who does not want to hear."""


@dataclass(frozen=True)
class Extraction:
    """How features came to be. Seconds are wall-clock seconds of the whole call."""

    rows: int
    computed: int
    reused: int
    seconds: float
    runtime: str = ""
    precision: str = ""
    parity: Mapping[str, float] = field(default_factory=dict)

    @property
    def rows_per_second(self) -> float:
        return self.computed / self.seconds if self.seconds > 0 else 0.0


@dataclass(frozen=True)
class Features:
    """What a backbone gives: named arrays whose first axis is the rows (float32).

    `unreadable` maps a row's position to the reason; such a row holds NaN.
    """

    arrays: Mapping[str, NDArray[np.float32]]
    unreadable: Mapping[int, str]
    extraction: Extraction

    @property
    def matrix(self) -> NDArray[np.float32]:
        """The only array, flattened to (rows, width); may be a read-only memory map."""
        (array,) = self.arrays.values()
        return array.reshape(len(array), prod(array.shape[1:]))


@dataclass(frozen=True)
class Score:
    """One measured number with its interval at `level`, over `rows` rows."""

    metric: str
    value: float
    low: float
    high: float
    rows: int
    level: float = 0.95


@dataclass(frozen=True)
class ClassScores:
    """Scores of one class; `rows` is how many rows truly carry the label."""

    label: str
    rows: int
    precision: Score
    recall: Score
    f1: float


@dataclass(frozen=True)
class CalibrationBin:
    """One equal-mass bin: mean stated confidence, share of right answers, rows."""

    confidence: float
    accuracy: float
    rows: int


@dataclass(frozen=True)
class Assessment:
    """All that is said of one model's answers on rows it never saw."""

    scores: Mapping[str, Score]
    classes: tuple[ClassScores, ...]
    confusion: tuple[tuple[int, ...], ...]
    calibration: tuple[CalibrationBin, ...]


@dataclass(frozen=True)
class Comparison:
    """The chosen model's score minus one baseline's, with its interval (points as fractions)."""

    baseline: str
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class Verdict:
    """Did transfer help? Against the strongest baseline, by one fixed rule (see verdict.py)."""

    outcome: Literal["helped", "hurt", "undecided"]
    metric: Metric
    about: Literal["this model", "the procedure"]
    comparisons: tuple[Comparison, ...]
    decisive: Comparison
    level: float
    margin: float
    rows: int
    caution: str | None = None

    @property
    def difference(self) -> float:
        return self.decisive.difference

    def __str__(self) -> str:
        d = self.decisive
        amount = f"{100 * d.difference:+.1f} points"
        interval = f"({100 * self.level:.0f}% {100 * d.low:+.1f} to {100 * d.high:+.1f})"
        return f"{self.outcome}: {amount} {interval} against {d.baseline}"


@dataclass(frozen=True)
class CurvePoint:
    """Score with `per_class` labels a class: mean and standard error over `draws` draws."""

    per_class: int
    rows: int
    mean: float
    error: float
    draws: int


@dataclass(frozen=True)
class LearningCurve:
    """Score by number of labels a class, per strategy; `labels_saved` explained in curve.py."""

    metric: Metric
    curves: Mapping[str, tuple[CurvePoint, ...]]
    labels_saved: int | None
    sentence: str


@dataclass(frozen=True)
class DatasetSummary:
    """What a dataset was, without its rows. `counts`: part -> label -> rows."""

    name: str
    kind: Kind
    rows: int
    labels: tuple[str, ...]
    counts: Mapping[str, Mapping[str, int]]
    unlabelled: int
    unreadable: Mapping[str, str]
    split_origin: str
    digest: str
    notes: tuple[str, ...]

    @property
    def splits(self) -> dict[str, int]:
        return {part: sum(by_label.values()) for part, by_label in self.counts.items()}


@dataclass(frozen=True)
class SourceSummary:
    """Where the shared layers came from, and why this source was taken.

    notes: how the rows suit it, a sentence each, such as the share of words that it does not know.
    """

    name: str
    revision: str | None
    sha256: str
    licence: str | None
    width: int
    reason: str
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Transferability:
    """One score of one source's features for the labels, against shuffled labels (see transferability.py).

    Larger is better. z: null deviations above the null's mean; p: share of shufflings at least as good.
    """

    name: str
    value: float
    z: float
    p: float


@dataclass(frozen=True)
class Candidate:
    """What ranking found of one source.

    expected: the metric after a probe with all rows that may be learnt from, and its interval.
    rows: rows of this dataset that it was looked at with. probability_best and regret (expected loss
    of the metric by taking this source rather than the best): by a paired bootstrap over rows.
    seconds: what looking at it cost, extraction included. memory: bytes of its weights in memory.
    rows_per_second: of extraction as a service would do it, None where it was not measured.
    reason: one sentence.
    """

    name: str
    sha256: str
    licence: str | None
    width: int
    rows: int
    expected: Score
    probability_best: float
    regret: float
    scores: tuple[Transferability, ...]
    seconds: float
    memory: int
    rows_per_second: float | None
    reason: str


@dataclass(frozen=True)
class Ranking:
    """Which source to start from, best first, and how sure that is.

    choice: None when nothing stands out. baseline: the score of not transferring on rows looked at;
    ahead: the first source's less it, paired over the same rows and folds (fractions). p: of the
    strongest score of all sources under shuffled labels. budget: seconds allowed, None for no bound.
    refused: source name -> why it was not looked at. sentence: the whole in one.
    """

    metric: Metric
    choice: str | None
    candidates: tuple[Candidate, ...]
    baseline: Score | None
    ahead: Score | None
    p: float
    rows: int
    budget: float | None
    seconds: float
    refused: Mapping[str, str]
    sentence: str


@dataclass(frozen=True)
class Mistake:
    """A row answered wrongly. `picture` is a small PNG or JPEG (of a recording, its waveform and
    spectrogram); `text` at most 400 characters; `sound` a few seconds of a recording, as a file that
    browsers play.
    """

    name: str
    truth: str
    answer: str
    probability: float
    picture: bytes | None = None
    text: str | None = None
    sound: bytes | None = None


@dataclass(frozen=True)
class FeatureMap:
    """Two-dimensional map of features (first two discriminant or principal directions).

    x, y: coordinates; codes: true label of each point; right: whether it was answered rightly.
    """

    x: tuple[float, ...]
    y: tuple[float, ...]
    codes: tuple[int, ...]
    right: tuple[bool, ...]
    method: str


@dataclass(frozen=True)
class Trial:
    """One candidate that `auto` tried. rung: 0 for the first look; each further one has more rows or epochs.

    settings: what was set apart from the defaults, in plain JSON. rows: learnt from. score (the declared
    metric) and log_loss: on rows that no candidate learnt from, None where it gave none. seconds: what it
    cost. outcome: "chosen", "went on", "stopped" or "failed"; reason: one sentence.
    """

    strategy: str
    settings: Mapping[str, object]
    rung: int
    rows: int
    score: float | None
    log_loss: float | None
    seconds: float
    outcome: Literal["chosen", "went on", "stopped", "failed"]
    reason: str


@dataclass(frozen=True)
class Result:
    """All that one `fit` found out, without the model: what the manifest and the report say.

    `assessment` and the baselines' are of rows no strategy saw: the test part, or (where
    `assessed_on` is "folds") the held-out parts of repeated folds. `verdict` is None where no
    baseline was asked for; `no_verdict` then says why. `seconds`: stage -> wall-clock seconds.
    `training_curve`: (epoch, training loss, validation loss or None) for networks trained by epochs.
    `ranking`: where the source was chosen by measurement. `trials`: of `auto`, in the order they were
    made. `budget`: seconds that were allowed.
    """

    dataset: DatasetSummary
    source: SourceSummary | None
    strategy: str
    settings: Mapping[str, object]
    seed: int
    metric: Metric
    extraction: Extraction | None
    assessed_on: Literal["test", "folds"]
    assessment: Assessment
    baselines: Mapping[str, Assessment]
    verdict: Verdict | None
    no_verdict: str | None
    curve: LearningCurve | None
    mistakes: tuple[Mistake, ...]
    map: FeatureMap | None
    unknown_rate: float | None
    seconds: Mapping[str, float]
    versions: Mapping[str, str]
    created: str
    training_curve: tuple[tuple[int, float, float | None], ...] = ()
    ranking: Ranking | None = None
    trials: tuple[Trial, ...] = ()
    budget: float | None = None
