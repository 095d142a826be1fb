"""What an inspection and a result say, in sentences of the reader's language."""

import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal

from markupsafe import Markup
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from graftwork.records import Metric
from graftwork.report.words import isolated, level, percent, points
from graftwork.service.pages.rendering import joined
from graftwork.service.pages.wording import Words

_UNBALANCED = 3.0
_ELONGATED = 0.2
_PARTS = ("train", "validation", "test")
_LISTED = 5
_LEAST = 0.0005
"""Below this a difference is written as 0.0 points."""


def warnings(t: Words, found: Mapping[str, Any]) -> list[Markup]:
    """The same findings that `graft inspect` warns of, from its JSON."""
    return [*_of_rows(t, found), *_of_classes(t, found), *_of_repeats(t, found), *_of_contents(t, found)]


def _of_rows(t: Words, found: Mapping[str, Any]) -> Iterator[Markup]:
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


class Summary(BaseModel):
    """What a model's card shows; of a model that was brought here nothing of it need be there."""

    model_config = ConfigDict(allow_inf_nan=False)
    metric: str | None = None
    scores: dict[str, dict[str, _Score]] | None = None
    verdict: _Outcome | None = None

    @classmethod
    def read(cls, summary: object) -> "Summary":
        try:
            return cls.model_validate(summary)
        except ValidationError:
            return cls()

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


class Told(BaseModel):
    """What the page shows of a fit's JSON. A stranger may have written it: all is checked."""

    model_config = ConfigDict(allow_inf_nan=False)
    strategy: str
    metric: Metric
    scores: dict[str, dict[str, _Score]] = Field(min_length=1)
    baselines: dict[str, dict[str, _Score]] = {}
    verdict: _Verdict | None = None
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
