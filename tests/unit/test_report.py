"""The report says all that the Result holds, verdict first, and nothing in it can act."""

import base64
import hashlib
import io
import math
import re
from dataclasses import replace
from html.parser import HTMLParser
from itertools import combinations
from typing import Literal

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from graftwork import sounds, wire
from graftwork.records import (
    Assessment,
    CalibrationBin,
    ClassScores,
    Comparison,
    CurvePoint,
    DatasetSummary,
    Extraction,
    FeatureMap,
    LearningCurve,
    Mistake,
    Result,
    Score,
    SourceSummary,
    Verdict,
)
from graftwork.report import render
from graftwork.report.charts import MAP_POINTS, MAP_SIZE, _middles, drawn
from graftwork.report.render import (
    PICTURE_BYTES,
    SOUND_BYTES,
    confused_pairs,
    picture_urls,
    sound_urls,
)
from graftwork.report.svg import WIDTH
from graftwork.report.words import duration, isolated, plain, points, sentence, visible
from graftwork.verdict import in_words

LABELS = ("t-shirt", "trousers", "shoes")
ORDER = [
    "verdict",
    "scores",
    "data",
    "confusion",
    "classes",
    "calibration",
    "curve",
    "mistakes",
    "map",
    "time",
    "training",
    "provenance",
]
Outcome = Literal["helped", "hurt", "undecided"]
DIFFERENCES: dict[Outcome, tuple[float, float, float]] = {
    "helped": (0.112, 0.079, 0.146),
    "hurt": (-0.041, -0.062, -0.021),
    "undecided": (0.013, -0.014, 0.036),
}
HOSTILE = (
    "<script>document.title='owned'</script>",
    "</style></title><script>alert(1)</script>",
    "\" onerror=alert(1) x='",
    "\u202eevil\u202c\u2066right\u2069",
    "{{ 7 * 7 }}{% raw %}",
    "nul\x00 lone\ud800",
    "标签" * 200,
    "z" + "\u0301" * 60,
)


def picture(colour: str = "teal", form: str = "PNG") -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (48, 36), colour).save(buffer, form)
    return buffer.getvalue()


def heard(seconds: float = 0.2) -> bytes:
    return sounds.encode(np.sin(np.linspace(0, 300, round(8000 * seconds))), 8_000)


def assessment(labels: tuple[str, ...] = LABELS, right: int = 17) -> Assessment:
    """Each class has `right` right answers and one taken for the next class."""
    k = len(labels)
    confusion = tuple(tuple(right if i == j else int(j == (i + 1) % k) for j in range(k)) for i in range(k))
    rows = k * (right + 1)
    shares = {
        name: Score(name, value, value - 0.031, value + 0.028, rows)
        for name, value in (("accuracy", 0.9123), ("log_loss", 0.3217), ("calibration_error", 0.0219))
    }
    classes = tuple(
        ClassScores(
            label,
            right + 1,
            Score("precision", 0.8512, 0.7023, 0.9334, right + 1),
            Score("recall", 0.8634, 0.7145, 0.9456, right + 1),
            0.8573,
        )
        for label in labels
    )
    bins = (CalibrationBin(0.517, 0.533, 27), CalibrationBin(0.966, 0.944, 26))
    return Assessment(shares, classes, confusion, bins)


def verdict(outcome: Outcome) -> Verdict:
    comparisons = (
        Comparison("classical", *DIFFERENCES[outcome]),
        Comparison("scratch", 0.231, 0.186, 0.277),
    )
    return Verdict(outcome, "accuracy", "this model", comparisons, comparisons[0], 0.95, 0.005, 54, None)


def result(outcome: Outcome = "helped", labels: tuple[str, ...] = LABELS, name: str = "wardrobe") -> Result:
    """A whole Result, every optional part there."""
    k = len(labels)
    line = tuple(CurvePoint(n, n * k, 0.3 + 0.1 * i, 0.0123, 5) for i, n in enumerate((1, 2, 4, 8)))
    below = tuple(replace(p, mean=p.mean - 0.15) for p in line)
    return Result(
        dataset=DatasetSummary(
            name,
            "image",
            4321,
            labels,
            {"train": dict.fromkeys(labels, 1423), "test": dict.fromkeys(labels, 18)},
            7,
            {"broken.jpg": "is truncated"},
            "made",
            "d1" * 32,
            ("two labels differ only by case",),
        ),
        source=SourceSummary(
            "mobilenet", "ae9f7ac1", "3b" * 32, "apache-2.0", 1280, "the only one that fits"
        ),
        strategy="probe",
        settings={"strength": 0.0316, "resize": "fit", "balanced": True},
        seed=1729,
        metric="accuracy",
        extraction=Extraction(4321, 4001, 320, 12.5, "openvino", "bf16", {"mean_cosine": 0.9987}),
        assessed_on="test",
        assessment=assessment(labels),
        baselines={"classical": assessment(labels, 14), "scratch": assessment(labels, 11)},
        verdict=verdict(outcome),
        no_verdict=None,
        curve=LearningCurve("accuracy", {"probe": line, "classical": below}, 2718, "Saved 2718 labels."),
        mistakes=(
            Mistake("photos/8.png", labels[0], labels[1], 0.9871, picture()),
            Mistake("texts.csv:12", labels[1], labels[0], 0.7345, None, "a plain text"),
        ),
        map=FeatureMap(
            (0.0, 1.0, 2.0), (1.0, 0.5, 0.0), (0, 1, 1), (True, False, True), "principal directions"
        ),
        unknown_rate=0.0489,
        seconds={"features": 12.5, "head": 0.834, "total": 95.0},
        versions={"graftwork": "0.1.0", "torch": "2.13.0"},
        created="2026-11-22T03:41:07+00:00",
        training_curve=((1, 1.2345, 1.3456), (2, 0.8123, None)),
    )


class Page(HTMLParser):
    """What a browser would make of a page: its elements, and the text a reader sees."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.text = ""
        self._hidden = False
        self.feed(html)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, {key: value or "" for key, value in attrs}))
        self._hidden = tag == "style"

    def handle_endtag(self, tag: str) -> None:
        self._hidden = False

    def handle_data(self, data: str) -> None:
        self.text += "" if self._hidden else data

    @property
    def sections(self) -> list[str]:
        return [attributes["id"] for tag, attributes in self.elements if tag == "section"]


@pytest.fixture(scope="module")
def html() -> str:
    return render(result())


@pytest.fixture(scope="module")
def page(html: str) -> Page:
    return Page(html)


def test_sections_come_in_reading_order_and_contents_name_each(page: Page) -> None:
    assert page.sections == ORDER
    links = [attributes["href"] for tag, attributes in page.elements if tag == "a"]
    assert links == [f"#{key}" for key in ORDER]


@pytest.mark.parametrize("outcome", ["helped", "hurt", "undecided"])
def test_verdict_opens_the_page_in_its_own_words(outcome: Outcome) -> None:
    text = Page(render(result(outcome))).text
    before_scores = text[: text.index("Measured on")]
    expected = sentence(
        in_words(verdict(outcome)),
        {"helped": "Transfer helped", "hurt": "Transfer hurt"}.get(outcome, "Undecided"),
    )
    assert expected in before_scores
    assert "54 rows" in before_scores and "classical and scratch" in before_scores


def test_advice_is_given_exactly_when_transfer_did_not_help() -> None:
    assert "What to do now" not in render(result("helped"))
    for outcome in ("hurt", "undecided"):
        text = Page(render(result(outcome))).text
        assert "What to do now" in text and "graft fit DATA -o ARTEFACT --strategy classical" in text


def test_undecided_says_how_many_rows_would_decide() -> None:
    # the lower half of the interval is 2.7 points, 0.8 remain beyond the margin: (27 / 8)^2 times 54 rows
    assert "would need about 620" in render(result("undecided"))
    within = replace(verdict("undecided"), decisive=Comparison("classical", 0.004, -0.02, 0.028))
    assert "more would narrow it" in render(replace(result(), verdict=within))


def test_missing_verdict_says_why_and_what_to_do() -> None:
    text = Page(render(replace(result(), verdict=None, no_verdict="no baseline was asked for"))).text
    assert "No verdict" in text and "No baseline was asked for." in text and "--baselines all" in text


def test_every_number_of_the_result_is_on_the_page(page: Page) -> None:
    for number in (
        "+11.2", "+7.9 to +14.6", "+23.1", "+18.6 to +27.7",
        "91.2%", "88.1–94.0%", "0.322", "0.291–0.350", "0.022",
        "4,321", "1,423", "18", "7 rows", "1 unreadable row",
        "86.3%", "71.5–94.6%", "85.1%", "70.2–93.3%", "F1 85.7%",
        "51.7%", "53.3%", "27", "96.6%", "94.4%", "26",
        "2,718", "60.0%", "45.0%", "1.2%",
        "98.7%", "73.5%", "4.9%",
        "4,001", "320", "12.5 s", "834 ms", "1 min 35 s",
        "1.2345", "1.3456", "0.8123",
        "1,280", "0.0316", "0.9987", "1729", "0.1.0", "2.13.0",
    ):  # fmt: skip
        assert number in page.text, number


def test_everything_said_about_data_and_source_is_on_the_page(page: Page) -> None:
    for said in (
        "wardrobe", *LABELS, "broken.jpg", "is truncated", "two labels differ only by case", "made here",
        "photos/8.png", "texts.csv:12", "a plain text", "Saved 2718 labels.", "principal directions",
        "mobilenet", "ae9f7ac1", "3b" * 32, "apache-2.0", "the only one that fits", "d1" * 32, "openvino",
        "bf16", "resize", "fit", "yes", "2026-11-22T03:41:07+00:00",
    ):  # fmt: skip
        assert said in page.text, said


def test_page_needs_nothing_from_outside_and_runs_nothing(html: str, page: Page) -> None:
    assert not {"script", "link", "iframe", "object", "embed", "base", "form"} & {
        tag for tag, _ in page.elements
    }
    for tag, attributes in page.elements:
        assert not [key for key in attributes if key.startswith("on") or key == "style"], (tag, attributes)
        assert attributes.get("src", "data:").startswith("data:image/") or "src" not in attributes
        assert attributes.get("href", "#").startswith("#")
    assert "http:" not in html and "https:" not in html and "url(" not in html and "@import" not in html


def test_policy_allows_this_very_style_and_nothing_else(html: str, page: Page) -> None:
    (policy,) = [a["content"] for t, a in page.elements if a.get("http-equiv") == "Content-Security-Policy"]
    (style,) = re.findall(r"<style>(.*?)</style>", html, re.DOTALL)
    digest = base64.b64encode(hashlib.sha256(style.encode()).digest()).decode()
    assert (
        "default-src 'none'" in policy and f"style-src 'sha256-{digest}'" in policy and "script" not in policy
    )


def test_charts_are_named_and_described(page: Page) -> None:
    ids = {attributes["id"] for _, attributes in page.elements if "id" in attributes}
    charts = [
        attributes for tag, attributes in page.elements if tag == "svg" and attributes.get("role") == "img"
    ]
    assert len(charts) == 4
    for chart in charts:
        assert set(chart["aria-labelledby"].split()) <= ids


def test_ids_are_unique(page: Page) -> None:
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def poisoned(text: str) -> Result:
    """`text` wherever a user or a source can put one."""
    one = result(labels=(text, f"{text} 2", "third"), name=text)
    return replace(
        one,
        dataset=replace(one.dataset, notes=(text,), unreadable={text: text}, digest=text, split_origin=text),
        source=SourceSummary(text, text, text, text, 3, text),
        settings={text: text},
        mistakes=(
            Mistake(text, text, text, 0.5, picture(), text, heard()),
            Mistake(text, text, text, 0.5, text.encode("utf-8", "replace")),
        ),
        versions={text: text},
        created=text,
        curve=replace(one.curve, sentence=text) if one.curve else None,
        map=replace(one.map, method=text) if one.map else None,
        verdict=replace(verdict("hurt"), caution=text),
        seconds={text: 1.0},
    )


SHAPE = [(tag, sorted(attributes)) for tag, attributes in Page(render(poisoned("plain"))).elements]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_changes_the_page_it_stands_in(text: str) -> None:
    assert_same_shape(text)


@settings(max_examples=25, deadline=None)
@given(st.text(st.characters(exclude_categories=()), min_size=1, max_size=40))
def test_any_text_leaves_the_page_its_shape(text: str) -> None:
    assert_same_shape(text)


def assert_same_shape(text: str) -> None:
    html = render(poisoned(text))
    html.encode("utf-8")
    assert [(tag, sorted(attributes)) for tag, attributes in Page(html).elements] == SHAPE
    assert not re.search(
        "[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\x00-\x08\x0b-\x1f\x7f-\x9f]", html.replace("\n", "")
    )


def test_labels_stand_isolated_from_the_sentence_around_them() -> None:
    assert isolated("مرحبا <b>") == "<bdi>مرحبا &lt;b&gt;</bdi>"
    assert isolated("") == "<bdi>(empty)</bdi>"
    assert str(isolated("x" * 50, limit=10)) == "<bdi>" + "x" * 9 + "…</bdi>"


@settings(deadline=None)
@given(st.text(st.characters(exclude_categories=())))
def test_visible_text_holds_nothing_unseen_and_is_stable(text: str) -> None:
    shown = visible(text)
    assert visible(shown) == shown
    shown.encode("utf-8")


def test_visible_names_what_it_takes_out() -> None:
    assert visible("a\u202eb\x00c\nd") == "a‹U+202E›b‹U+0000›c d"
    assert visible("नमस्ते 👩‍🔬") == "नमस्ते 👩‍🔬"
    assert visible("z" + "\u0301" * 60) == "z" + "\u0301" * 4


def test_matrix_gives_way_to_confused_pairs_beyond_twenty_classes() -> None:
    few = render(result(labels=tuple(f"class {i}" for i in range(20))))
    many = render(result(labels=tuple(f"class {i}" for i in range(21))))
    assert 'class="matrix' in few and 'class="matrix' not in many
    assert 'class 4</bdi></th><td class="name"><bdi>class 5' in many


def test_confused_pairs_come_most_rows_first() -> None:
    one = replace(assessment(), confusion=((8, 2, 0), (0, 9, 1), (5, 0, 5)))
    assert confused_pairs(one) == [
        ("shoes", "t-shirt", 5, 0.5), ("t-shirt", "trousers", 2, 0.2), ("trousers", "shoes", 1, 0.1)
    ]  # fmt: skip


def test_the_result_s_json_names_which_label_was_taken_for_which() -> None:
    one = replace(assessment(), confusion=((8, 2, 0), (0, 9, 1), (5, 0, 5)))
    assert wire.confusions(one) == [
        {"label": "shoes", "answer": "t-shirt", "rows": 5},
        {"label": "t-shirt", "answer": "trousers", "rows": 2},
        {"label": "trousers", "answer": "shoes", "rows": 1},
    ]
    assert wire.result(result())["confusions"] == wire.confusions(result().assessment)
    every = tuple(tuple(int(i != j) for j in range(3)) for i in range(3))
    assert len(wire.confusions(replace(one, confusion=every))) == 6 < wire.CONFUSIONS


def test_all_classes_are_there_even_where_they_fold_away() -> None:
    labels = tuple(f"类别{i:02d}" for i in range(60))
    text = Page(render(result(labels=labels))).text
    assert "40 more classes" in text and all(text.count(label) >= 2 for label in labels)


def test_parts_that_were_not_measured_are_left_out() -> None:
    bare = replace(
        result(), verdict=None, no_verdict="probe does not transfer", source=None, extraction=None,
        baselines={}, curve=None, mistakes=(), map=None, unknown_rate=None, training_curve=(), seconds={},
        assessment=Assessment({}, (), (), ()),
    )  # fmt: skip
    page = Page(render(bare))
    assert page.sections == ["verdict", "scores", "data", "provenance"]
    assert "--baselines all" not in page.text


def test_numbers_that_do_not_exist_are_said_to_be_missing() -> None:
    nan = float("nan")
    none = Score("recall", nan, nan, nan, 0)
    unseen = ClassScores("unseen", 0, none, none, nan)
    one = result()
    text = Page(
        render(
            replace(one, assessment=replace(one.assessment, classes=(unseen, *one.assessment.classes[1:])))
        )
    ).text
    assert not re.search(r"\bnan\b", text) and "n/a" in text
    assert "Never tested, as no row to test on carries it: unseen" in text


def test_perfect_answers_leave_no_mistakes_to_show() -> None:
    one = result()
    perfect = replace(one.assessment, confusion=((18, 0, 0), (0, 18, 0), (0, 0, 18)))
    assert "All 54 answers were right." in Page(render(replace(one, assessment=perfect, mistakes=()))).text


def test_withheld_examples_are_said_to_be_withheld() -> None:
    assert "kept out of this report" in render(replace(result(), mistakes=()))


def test_folds_are_named_as_such() -> None:
    procedure = replace(verdict("helped"), about="the procedure")
    text = Page(render(replace(result(), assessed_on="folds", verdict=procedure))).text
    assert "held out in folds" in text and "There is no test part" in text and "the procedure" in text
    assert "the verdict is of all, so the two may differ" in text


def test_pictures_are_embedded_only_as_what_they_are_and_up_to_a_limit() -> None:
    png, jpeg = picture(), picture(form="JPEG")
    large = png + bytes(PICTURE_BYTES - len(png))
    given = [png, jpeg, b"<svg onload=alert(1)>", None, large]
    urls = picture_urls(tuple(Mistake("x", "a", "b", 0.5, content) for content in given))
    assert urls[0] == "data:image/png;base64," + base64.b64encode(png).decode()
    assert urls[1] is not None and urls[1].startswith("data:image/jpeg;base64,")
    assert urls[2:] == [None, None, None]


def audible(*contents: bytes | None) -> Result:
    """A result on recordings, with one mistake a sound."""
    one = result()
    shown = tuple(
        Mistake(f"{i}.wav", LABELS[0], LABELS[1], 0.9, picture(), None, sound)
        for i, sound in enumerate(contents)
    )
    return replace(one, mistakes=shown, dataset=replace(one.dataset, kind="audio"))


def test_recordings_can_be_played_and_the_policy_allows_just_that() -> None:
    html = render(audible(heard(), heard()))
    assert html.count('<audio controls preload="metadata"') == 2
    assert f'src="data:audio/wav;base64,{base64.b64encode(heard()).decode()}"' in html
    assert "img-src data:; media-src data:; style-src" in html
    assert 'alt="Waveform and spectrogram of 0.wav"' in html and 'alt="Picture' not in html
    assert "4,321 recordings" in Page(html).text and "Listen to them first" in Page(html).text


def test_where_nothing_can_be_played_the_policy_allows_no_sound() -> None:
    withheld = replace(audible(heard()), mistakes=())
    for one in (result(), audible(None), audible(b"<script>"), withheld):
        html = render(one)
        assert "media-src" not in html and "<audio" not in html


def test_sounds_are_embedded_only_as_what_they_are_and_up_to_a_limit() -> None:
    large = heard() + bytes(SOUND_BYTES - len(heard()))
    urls = sound_urls(audible(heard(), b"OggS", None, large, heard()).mistakes)
    url = "data:audio/wav;base64," + base64.b64encode(heard()).decode()
    assert urls == [url, None, None, None, url]
    assert render(audible(heard(), large)).count("(sound left out)") == 1


def test_a_map_of_thousands_is_sampled_and_says_so() -> None:
    n = 6000
    many = FeatureMap(
        tuple(float(i % 97) for i in range(n)), tuple(float(i % 89) for i in range(n)),
        tuple(i % 3 for i in range(n)), tuple(i % 7 > 0 for i in range(n)), "principal directions",
    )  # fmt: skip
    html = render(replace(result(), map=many))
    assert "1,500 of 6,000 rows are drawn" in html and len(html.encode()) < 2_000_000
    assert len(set(drawn(many))) == MAP_POINTS and max(drawn(many)) > n - 10


def test_degenerate_maps_are_drawn() -> None:
    nan = float("nan")
    same = FeatureMap(
        (1.0, 1.0, nan), (2.0, 2.0, 0.0), (0, 1, -1), (True, True, True), "principal directions"
    )
    html = render(replace(result(), map=same))
    assert drawn(same) == [0, 1] and not re.search(r"\bnan\b", html)


def test_rendering_twice_gives_the_same_page() -> None:
    assert render(result()) == render(result())


@pytest.mark.parametrize(
    ("seconds", "said"),
    [
        (0.0123, "12 ms"),
        (0.9999, "1.0 s"),
        (3.44, "3.4 s"),
        (59.96, "1 min 00 s"),
        (125.2, "2 min 05 s"),
        (4200, "1 h 10 min"),
    ],
)
def test_durations_read_in_their_best_unit(seconds: float, said: str) -> None:
    assert duration(seconds) == said


def test_points_are_signed_with_a_true_minus() -> None:
    assert (points(0.112), points(-0.041)) == ("+11.2", "−4.1")
    assert sentence("Undecided: 1 point, -1.4 to +3.6", "Undecided") == "1 point, −1.4 to +3.6."


def test_a_thousand_classes_with_many_pictures_stay_under_two_megabytes() -> None:
    labels = tuple(f"a class of some length, number {i}" for i in range(1000))
    noise = picture() + bytes(90_000)
    shown = tuple(Mistake(f"{i}.png", labels[i], labels[i + 1], 0.9, noise) for i in range(20))
    html = render(replace(result(labels=labels), mistakes=shown))
    assert len(html.encode()) < 2_000_000 and "(picture left out)" in html


@settings(deadline=None, max_examples=50)
@given(
    st.lists(
        st.tuples(st.sampled_from([0.0, 40.0, 180.0, 360.0]), st.sampled_from([0.0, 170.0])),
        min_size=2,
        max_size=8,
    )
)
def test_numbers_on_the_map_stand_apart_and_inside(places: list[tuple[float, float]]) -> None:
    middles = list(_middles(places, range(len(places))).values())
    assert all((12 <= x <= WIDTH - 12 and 12 <= y <= MAP_SIZE - 12) or (x, y) in places for x, y in middles)
    assert all(math.dist(a, b) > 12 for a, b in combinations(middles, 2))


def test_settings_read_plainly() -> None:
    assert plain({"a": 0.1 + 0.2, "b": None, "c": True}) == "a 0.3, b none, c yes"
    assert (
        plain([{"head": "ridge", "loss": 1.0}, {"head": "logistic"}]) == "head ridge, loss 1; head logistic"
    )
    assert plain([]) == "none" and plain((1, "x")) == "1, x"
