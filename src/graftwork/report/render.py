"""The report: everything a Result says, as one HTML file that needs nothing but a browser.

No script, no outside resource: the page forbids itself both by a content security policy whose
only allowed style is its own, by digest. Everything that came from the user (labels, file names,
texts) is escaped and isolated.
"""

import base64
import hashlib
import math
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from graftwork.catalogue import forbids_commercial_use
from graftwork.records import Assessment, Mistake, Ranking, Result, Verdict
from graftwork.report import charts, course, ranking_chart, trials, words
from graftwork.verdict import in_words

MATRIX_CLASSES = 20
"""Above this a confusion matrix cannot be read; the most confused pairs are listed instead."""
PHONE_CLASSES = 12
"""Above this a phone shows the most confused pairs and leaves the matrix to wider screens."""
PAIRS = 25
OPEN_CLASSES = 20
"""Classes shown at once in a table; the others fold away."""
PICTURE_BYTES = 1_000_000
"""All pictures together; what comes beyond is named without its picture, so the file stays light."""
SOUND_BYTES = 1_600_000
"""All sounds together, likewise."""
_PICTURES = {b"\x89PNG\r\n\x1a\n": "image/png", b"\xff\xd8\xff": "image/jpeg"}
_SOUNDS = {b"RIFF": "audio/wav"}
_HERE = Path(__file__).parent


def render(result: Result) -> str:
    """One self-contained HTML5 document (UTF-8), the verdict first. `result` is not changed."""
    return (
        _environment()
        .get_template("page.html")
        .render(
            **_style(),
            result=result,
            sections=_sections(result),
            models={_own_name(result): result.assessment, **result.baselines},
            metrics=_metrics(result),
            advice=advice(result),
            warnings=warnings(result),
            pairs=confused_pairs(result.assessment),
            wrong=_wrong(result.assessment),
            tested=sum(map(sum, result.assessment.confusion)),
            pictures=picture_urls(result.mistakes),
            sounds=sound_urls(result.mistakes),
            said_of_training=course.course(result),
            settings=_settings(result),
            weakest=sorted(result.assessment.classes, key=lambda one: (one.rows == 0, one.f1)),
            limits={
                "matrix": MATRIX_CLASSES,
                "phone": PHONE_CLASSES,
                "pairs": PAIRS,
                "open": OPEN_CLASSES,
            },
        )
    )


def render_ranking(ranking: Ranking, name: str) -> str:
    """One self-contained HTML5 document (UTF-8) on which source to start from; name: of the dataset."""
    return _environment().get_template("ranking_page.html").render(**_style(), ranking=ranking, name=name)


def _style() -> dict[str, Markup | str]:
    style = (_HERE / "page.css").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    return {"style": Markup(style), "style_digest": digest}


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=FileSystemLoader(_HERE),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["own"] = words.isolated
    environment.globals.update(
        words=words,
        charts=charts,
        chart=ranking_chart,
        course=course,
        trials=trials,
        forbids_commercial_use=forbids_commercial_use,
        in_words=in_words,
        heat=heat,
        plain=words.plain,
        zip=zip,
    )
    return environment


def _own_name(result: Result) -> str:
    """The chosen model's name, and what `auto` chose; told apart where a baseline is of the same strategy."""
    chosen = result.settings.get("chosen")
    if chosen and chosen != result.strategy:
        return f"{result.strategy} ({chosen})"
    return result.strategy if result.strategy not in result.baselines else f"{result.strategy} (chosen)"


def _sections(result: Result) -> dict[str, str]:
    """Anchor -> title of every part that this result has, in reading order."""
    answered = any(map(sum, result.assessment.confusion))
    parts = [
        ("verdict", "Verdict", True),
        ("scores", "Scores", True),
        ("source", "Source", result.ranking is not None),
        ("trials", "Trials", bool(result.trials)),
        ("data", "Data", True),
        ("confusion", "Confusions", answered),
        ("classes", "Classes", bool(result.assessment.classes)),
        ("calibration", "Calibration", bool(charts.measured(result.assessment.calibration))),
        ("curve", "Learning curve", result.curve is not None and any(result.curve.curves.values())),
        ("mistakes", "Mistakes", answered),
        ("map", "Map", result.map is not None and bool(charts.drawn(result.map))),
        ("time", "Time", bool(result.seconds) or result.extraction is not None),
        ("training", "Training", _trained(result)),
        ("provenance", "Provenance", True),
    ]
    return {key: title for key, title, there in parts if there}


def _trained(result: Result) -> bool:
    return bool(result.training_curve or course.options(result.settings) or result.settings.get("trouble"))


def _settings(result: Result) -> dict[str, object]:
    """What the record at the end lists: all but what other parts show."""
    shown = course.SHOWN if _trained(result) else frozenset()
    shown = shown | ({"trials", "not_tried"} if result.trials else {"trials"})
    return {key: value for key, value in result.settings.items() if key not in shown}


def _metrics(result: Result) -> list[str]:
    """The declared metric first, then the others as they were measured."""
    names = dict.fromkeys(name for one in _all(result) for name in one.scores)
    return [result.metric, *(name for name in names if name != result.metric)]


def _all(result: Result) -> list[Assessment]:
    return [result.assessment, *result.baselines.values()]


def advice(result: Result) -> list[tuple[str, str | None]]:
    """What to do now, where transfer did not help: (sentence, command or None)."""
    verdict = result.verdict
    if verdict is None and result.source is None:
        return []
    if verdict is None:
        return [
            ("Only a comparison on the same rows can tell:", "graft fit DATA -o ARTEFACT --baselines all")
        ]
    if verdict.outcome == "helped":
        return []
    best = verdict.decisive.baseline
    instead = f"graft fit DATA -o ARTEFACT --strategy {best}"
    if verdict.outcome == "hurt":
        return [
            (f"Use {best}, which does not transfer and did better on the same rows:", instead),
            ("Before giving up on transfer, try a source nearer to these rows:", "graft sources list"),
        ]
    needed = _rows_needed(verdict)
    more = f"a difference of this size would need about {needed:,}" if needed else "more would narrow it"
    return [
        (f"Take the one without transfer, {best}, unless something else speaks for the other:", instead),
        (f"Or label more rows to compare on: there were {verdict.rows:,}, and {more}.", None),
    ]


def _rows_needed(verdict: Verdict) -> int | None:
    """Test rows at which an interval around the same difference would leave the margin.

    The width goes by one over the root of the rows. None where that would be beyond 50 times as
    many, or where the difference lies within the margin: then no number of rows can be promised.
    """
    one = verdict.decisive
    # helped needs the lower bound above the margin, hurt the upper bound below its negative
    reach = (one.difference - one.low) if one.difference > 0 else (one.high - one.difference)
    clear = abs(one.difference) - verdict.margin
    if not (clear > 0 and math.isfinite(reach)):
        return None
    times = (reach / clear) ** 2
    return math.ceil(verdict.rows * times / 10) * 10 if 1 < times <= 50 else None


def warnings(result: Result) -> list[str]:
    """Everything about the data that a reader should know before trusting a number."""
    said = [*result.dataset.notes, *(result.source.notes if result.source else ())]
    if result.settings.get("remark"):
        said.append(words.begun(str(result.settings["remark"]), []))
    if result.assessed_on == "folds":
        said.append("There is no test part: the scores come from the held-out parts of repeated folds.")
    untested = [one.label for one in result.assessment.classes if one.rows == 0]
    if untested:
        said.append(f"Never tested, as no row to test on carries it: {', '.join(untested)}")
    return said


def confused_pairs(assessment: Assessment) -> list[tuple[str, str, int, float]]:
    """(true label, answered label, rows, share of the true label's rows), most rows first."""
    labels = [one.label for one in assessment.classes]
    pairs = [
        (labels[i], labels[j], rows, rows / sum(line))
        for i, line in enumerate(assessment.confusion)
        for j, rows in enumerate(line)
        if i != j and rows
    ]
    return sorted(pairs, key=lambda pair: (-pair[2], -pair[3]))


def _wrong(assessment: Assessment) -> int:
    return sum(n for i, line in enumerate(assessment.confusion) for j, n in enumerate(line) if i != j)


def heat(rows: int, of: int) -> str:
    """The class of a matrix cell, h0..h9, by its share of the row."""
    return f"h{min(9, math.ceil(9 * rows / of)) if of else 0}"


def picture_urls(mistakes: tuple[Mistake, ...]) -> list[str | None]:
    """A data URL for each mistake's picture.

    None where there is none, where it is no PNG or JPEG, and past PICTURE_BYTES.
    """
    return _urls([mistake.picture for mistake in mistakes], _PICTURES, PICTURE_BYTES)


def sound_urls(mistakes: tuple[Mistake, ...]) -> list[str | None]:
    """A data URL for each mistake's sound: None where there is none, no WAV, and past SOUND_BYTES."""
    return _urls([mistake.sound for mistake in mistakes], _SOUNDS, SOUND_BYTES)


def _urls(contents: list[bytes | None], types: Mapping[bytes, str], left: int) -> list[str | None]:
    urls: list[str | None] = []
    for content in contents:
        content = content or b""
        form = next((name for magic, name in types.items() if content.startswith(magic)), None)
        if form is None or len(content) > left:
            urls.append(None)
            continue
        left -= len(content)
        urls.append(f"data:{form};base64,{base64.b64encode(content).decode()}")
    return urls
