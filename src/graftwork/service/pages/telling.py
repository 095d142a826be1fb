"""What an inspection and a result say, in sentences of the reader's language."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, Self

from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from graftwork.datasets.workbooks import sheets_told
from graftwork.records import Metric
from graftwork.report.words import isolated, level, percent, points
from graftwork.service.pages.rendering import joined
from graftwork.service.pages.wording import Words

_UNBALANCED = 3.0
_ELONGATED = 0.2
_PARTS = ("train", "validation", "test")
_LISTED = 5
_WEAK = 0.8
"""A class of which less than this share is recognised is worth more examples."""
_LEAST = 0.0005
"""Below this a difference is written as 0.0 points."""


def warnings(t: Words, found: Mapping[str, Any]) -> list[Markup]:
    """The same findings that `graft inspect` warns of, from its JSON."""
    return [*_of_rows(t, found), *_of_classes(t, found), *_of_repeats(t, found), *_of_contents(t, found)]


def _of_rows(t: Words, found: Mapping[str, Any]) -> Iterator[Markup]:
    for sheet, others in filter(None, map(sheets_told, found.get("notes") or ())):
        yield t("warn.sheets", sheet=isolated(sheet, 80), others=isolated(others, 200))
    unreadable = found.get("unreadable") or {}
    if unreadable:
        name, reason = next(iter(unreadable.items()))
        yield t(
            "warn.unreadable",
            n=found.get("unreadable_rows") or len(unreadable),
            rows=found["rows"],
            name=isolated(name, 80),
            reason=isolated(reason, 200),
        )
    if found.get("unlabelled"):
        yield t("warn.unlabelled", n=found["unlabelled"])


def _of_classes(t: Words, found: Mapping[str, Any]) -> Iterator[Markup]:
    counts = found.get("counts") or {}
    singles = [label for label, rows in counts.get("train", {}).items() if rows == 1]
    if singles:
        yield t("warn.singles", labels=joined(t, singles))
    if (found.get("imbalance") or 0) >= _UNBALANCED:
        yield t("warn.imbalance", times=f"{found['imbalance']:.1f}")
    absent = found.get("absent") or []
    for part, label in absent[:_LISTED]:
        yield t("warn.absent", label=isolated(label, 60), part=t(f"part.{part}"))
    if len(absent) > _LISTED:
        yield t("warn.absent.more", n=len(absent) - _LISTED)
    for clash in found.get("clashes") or []:
        yield t("warn.clashes", labels=joined(t, list(clash)))


def _of_repeats(t: Words, found: Mapping[str, Any]) -> Iterator[Markup]:
    for how in ("exact", "near"):
        repeats = found.get(how) or {}
        if repeats.get("within"):
            yield t(f"warn.within.{how}", n=repeats["within"])
        for leak in repeats.get("leaks") or []:
            part, seen_in = t(f"part.{leak['part']}"), t(f"part.{leak['seen_in']}")
            yield t(f"warn.leak.{how}", n=leak["rows"], part=part, seen_in=seen_in)
    for size in found.get("oversized") or []:
        yield t("warn.oversized", n=size)


def _of_contents(t: Words, found: Mapping[str, Any]) -> Iterator[Markup]:
    conflicts = found.get("conflicts") or []
    if conflicts:
        first, second = (
            Markup("{} ({})").format(isolated(a, 60), isolated(b, 60)) for a, b in conflicts[0][:2]
        )
        yield t("warn.conflicts", n=len(conflicts), pair=t("warn.and", first=first, second=second))
    if (found.get("elongated") or 0) >= _ELONGATED:
        yield t("warn.elongated", share=percent(found["elongated"], 0))
    heard = found.get("recordings") or {}
    if heard.get("silent"):
        yield t("warn.silent", n=len(heard["silent"]), name=isolated(heard["silent"][0], 80))
    if len(heard.get("rates") or {}) > 1:
        yield t("warn.rates")
    if heard.get("long"):
        yield t("warn.long", n=heard["long"])


def balance(found: Mapping[str, Any]) -> dict[str, Any]:
    """Bars of the classes: {parts, balance: [{label, rows, parts: [(part, rows)]}], largest}."""
    counts: Mapping[str, Mapping[str, int]] = found.get("counts") or {}
    parts = [part for part in _PARTS if sum(counts.get(part, {}).values())]
    rows = [
        {"label": label, "parts": [(part, counts[part].get(label, 0)) for part in parts]}
        for label in found.get("classes") or []
    ]
    for one in rows:
        one["rows"] = sum(amount for _, amount in one["parts"])
    rows.sort(key=lambda one: -int(one["rows"]))
    return {"parts": parts, "balance": rows, "largest": max((one["rows"] for one in rows), default=0)}


class _Score(BaseModel):
    value: float | None
    low: float | None = None
    high: float | None = None


class _Verdict(BaseModel):
    outcome: Literal["helped", "hurt", "undecided"]
    difference: float
    low: float
    high: float
    baseline: str
    metric: Metric
    about: Literal["this model", "the procedure"]
    level: float
    rows: int
    caution: str | None = None


class _Outcome(BaseModel):
    outcome: Literal["helped", "hurt", "undecided"]


class _Told(BaseModel):
    """What a fit has said, which may have come with a model from anywhere."""

    model_config = ConfigDict(allow_inf_nan=False)

    @classmethod
    def read(cls, said: object) -> Self:
        """What is there of it; the empty one where it is nonsense."""
        try:
            return cls.model_validate(said)
        except ValidationError:
            return cls()


class Summary(_Told):
    """What a model's card shows; of a model that was brought here nothing of it need be there."""

    metric: str | None = None
    scores: dict[str, dict[str, _Score]] | None = None
    verdict: _Outcome | None = None

    @property
    def headline(self) -> float | None:
        """The score by the metric that was declared."""
        score = next(iter((self.scores or {}).values()), {}).get(self.metric or "")
        return None if score is None else score.value

    @property
    def outcome(self) -> str | None:
        return None if self.verdict is None else self.verdict.outcome


class _Dataset(BaseModel):
    splits: dict[str, int]
    rows: int | None = None
    unlabelled: int = 0
    unreadable: int = 0


class Told(BaseModel):
    """What the page shows of a fit's JSON. A stranger may have written it: all is checked."""

    model_config = ConfigDict(allow_inf_nan=False)
    strategy: str
    metric: Metric
    scores: dict[str, dict[str, _Score]] = Field(min_length=1)
    baselines: dict[str, dict[str, _Score]] = {}
    verdict: _Verdict | None = None
    budget: float | None = None
    dataset: _Dataset

    @property
    def assessed(self) -> Literal["test", "folds"]:
        return "folds" if "folds" in self.scores else "test"

    @property
    def assessed_rows(self) -> int:
        splits = self.dataset.splits
        return splits.get("test", 0) if self.assessed == "test" else sum(splits.values())

    @property
    def skips_scratch(self) -> bool:
        """Whether it was judged against classical models alone, as in the quick plan."""
        return "classical" in self.baselines and "scratch" not in {self.strategy, *self.baselines}

    @property
    def compared(self) -> list[dict[str, Any]]:
        """This model and those without transfer, by the metric that was declared: {name, score, ours}."""
        ours = next(iter(self.scores.values()))
        named = [(self.strategy, ours, True), *((name, one, False) for name, one in self.baselines.items())]
        return [
            {"name": name, "score": scores[self.metric], "ours": is_ours}
            for name, scores, is_ours in named
            if self.metric in scores and scores[self.metric].value is not None
        ]


class _Class(BaseModel):
    label: str
    rows: int
    recall: _Score


class _Confusion(BaseModel):
    label: str
    answer: str
    rows: int


class Errors(_Told):
    """Where a model errs, by the fit's JSON; empty where that says nothing of it, or nonsense."""

    classes: list[_Class] = []
    confusions: list[_Confusion] = []

    @property
    def weakest(self) -> list[tuple[str, float, int]]:
        """(label, share that was recognised, rows) of the classes recognised least, the worst first."""
        known = [
            (one.label, one.recall.value, one.rows)
            for one in self.classes
            if one.rows and one.recall.value is not None and one.recall.value < 1
        ]
        return sorted(known, key=lambda one: (one[1], -one[2]))[:_LISTED]

    @property
    def pairs(self) -> list[_Confusion]:
        return self.confusions[:_LISTED]


class _Source(BaseModel):
    name: str
    expected_accuracy: _Score
    probability_best: float | None = None


class Ranked(BaseModel):
    """What the page shows of a ranking's JSON; sources without an estimate are left out."""

    model_config = ConfigDict(allow_inf_nan=False)
    choice: str | None
    metric: Metric
    rows: int
    sources: list[_Source]
    baseline: _Score | None = None
    ahead: _Score | None = None

    @field_validator("sources")
    @classmethod
    def _estimated(cls, said: list[_Source]) -> list[_Source]:
        return [one for one in said if one.expected_accuracy.value is not None]

    @classmethod
    def read(cls, result: object) -> "Ranked | None":
        """None where it is no ranking."""
        try:
            return cls.model_validate(result)
        except ValidationError:
            return None

    @property
    def scores(self) -> list[_Score]:
        others = [self.baseline] if self.baseline is not None and self.baseline.value is not None else []
        return [*(one.expected_accuracy for one in self.sources), *others]


def ranking(t: Words, found: Ranked) -> Markup:
    """What a ranking found, as `graft rank` puts it."""
    first = next((one for one in found.sources if one.name == found.choice), None)
    if first is None:
        return t("rank.none")
    said = [
        t(
            "rank.choice",
            metric=t(f"metric.{found.metric}"),
            value=percent(first.expected_accuracy.value or 0.0),
            of=len(found.sources),
            chance="> 99%"
            if (first.probability_best or 0) > 0.99
            else percent(first.probability_best or 0, 0),
        )
        if len(found.sources) > 1
        else t(
            "rank.only",
            metric=t(f"metric.{found.metric}"),
            value=percent(first.expected_accuracy.value or 0.0),
        )
    ]
    ahead = found.ahead
    if ahead is not None and None not in (ahead.value, ahead.low, ahead.high):
        value, low, high = ahead.value or 0.0, ahead.low or 0.0, ahead.high or 0.0
        how = "rank.behind" if value <= 0 else "rank.ahead" if low > 0 else "rank.perhaps"
        said.append(t(how, points=points(value), low=points(low), high=points(high)))
    return Markup(" ").join(said)


def advice(t: Words, told: Told, errors: Errors) -> list[Markup]:
    """What to do now that it has learnt."""
    said = []
    if told.verdict is not None:
        said.append(t(f"verdict.{told.verdict.outcome}.advice"))
    elif told.strategy not in ("classical", "scratch"):
        said.append(t("verdict.none.advice" if told.budget is None else "verdict.none.late"))
    for label, share, rows in errors.weakest[:1]:
        if share < _WEAK:
            said.append(t("errors.advice", label=isolated(label, 60), share=percent(share, 0), n=rows))
    return said


def axis(scores: Iterable[tuple[float, float | None, float | None]]) -> tuple[float, float]:
    """(start, end) in whole tenths, between which all (value, low, high) lie; a fifth apart at least."""
    seen = [one for score in scores for one in score if one is not None]
    if not seen:
        return 0.0, 1.0
    end = min(1.0, math.ceil(10 * max(seen)) / 10)
    return max(0.0, min(math.floor(10 * min(seen)) / 10, end - 0.2)), end


def read(result: object) -> Told | None:
    """None where it is not what a fit says."""
    try:
        return Told.model_validate(result)
    except ValidationError:
        return None


def sentence(t: Words, verdict: _Verdict | None) -> Markup:
    """The verdict with its interval, as `graft fit` puts it."""
    if verdict is None:
        return t("verdict.without")
    where = "verdict.folds" if verdict.about == "the procedure" else "verdict.rows"
    is_level = abs(verdict.difference) < _LEAST
    return t(
        "verdict.same" if is_level else "verdict.more" if verdict.difference > 0 else "verdict.less",
        points=f"{100 * abs(verdict.difference):.1f}",
        metric=t(f"metric.{verdict.metric}"),
        baseline=isolated(verdict.baseline, 40),
        level=level(verdict.level),
        low=points(verdict.low),
        high=points(verdict.high),
        where=t(where, n=verdict.rows),
    )
