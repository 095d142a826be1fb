"""The report shows what `auto` tried: every trial, the chosen one, and where the time went."""

import re
from dataclasses import replace

import pytest
from test_report import HOSTILE, ORDER, Page, result

import tiny_trials as tiny
from graftwork.records import Result, Trial
from graftwork.report import render
from graftwork.report.svg import BOTTOM, HEIGHT, TOP
from graftwork.report.trials import chart, probe_level, sentence, spending, strategies
from graftwork.words import model_in_words


@pytest.fixture(scope="module")
def html() -> str:
    return render(tiny.searched(result()))


def test_trials_come_after_the_scores_and_only_where_there_are_any() -> None:
    assert Page(render(tiny.searched(result()))).sections == [*ORDER[:2], "trials", *ORDER[2:]]
    assert "trials" not in Page(render(result())).sections


def test_every_trial_is_on_the_page_with_all_that_was_recorded(html: str) -> None:
    text = Page(html).text
    for one in tiny.TRIALS:
        assert one.strategy in text and one.reason in text
        assert f"{one.rows:,}" in text
        assert one.score is None or f"{100 * one.score:.1f}%" in text
        assert one.log_loss is None or f"{one.log_loss:.3f}" in text
    for said in (
        "blocks 2, augment light",
        "400 ms",
        "1 min 38 s",
        "n/a",
        "went on",
        "left behind",
        "failed",
    ):
        assert said in text, said


def test_the_lead_says_what_was_tried_and_how_far_ahead_it_came() -> None:
    said = sentence(tiny.searched(result()))
    assert said == (
        "10 trials of 7 strategies in 2 min 36 s of 3 min 00 s allowed. Chosen: partial, 89.8% accuracy, "
        "3.7 points above the probe."
    )


def chosen(strategy: str, score: float | None) -> Result:
    probe = replace(tiny.TRIALS[0], outcome="chosen" if strategy == "probe" else "stopped")
    other = Trial(strategy, {}, 0, 100, score, 0.4, 5.0, "chosen", "")
    return tiny.searched(result(), (probe,) if strategy == "probe" else (probe, other))


@pytest.mark.parametrize(
    ("strategy", "score", "end"),
    [
        ("probe", 0.8612, "Chosen: probe, 86.1% accuracy; nothing did clearly better."),
        ("classical", 0.85, "1.1 points below the probe."),
        ("layers", 0.8613, "level with the probe."),
        ("layers", None, "allowed."),
    ],
)
def test_the_lead_is_honest_about_other_endings(strategy: str, score: float | None, end: str) -> None:
    assert sentence(chosen(strategy, score)).endswith(end)


def test_without_a_budget_or_a_probe_the_lead_says_less() -> None:
    found = replace(tiny.searched(result(), tiny.TRIALS[-1:]), budget=None)
    assert sentence(found) == "1 trial of 1 strategy in 39.9 s. Chosen: partial, 89.8% accuracy."
    assert probe_level(found.trials) is None
    assert 'class="without"' not in chart(found)


def test_the_chosen_trial_stands_out_once_in_chart_and_table(html: str) -> None:
    assert html.count('class="picked"') == 2  # the mark and its key
    (row,) = re.findall(r'<tbody class="ours">\s*<tr><th scope="row"><bdi>(.*?)</bdi>', html)
    assert row == "partial"


def test_marks_lie_in_the_order_of_time_and_score() -> None:
    drawing = str(chart(tiny.searched(result())))
    partial = re.search(r'd="(M[^"]*)" class="point c4"', drawing)
    assert partial is not None
    places = [(float(x), float(y)) for x, y in re.findall(r"M([\d.]+) ([\d.]+)", partial[1])]
    assert len(places) == 4 and places == sorted(places)
    heights = [y for _, y in places]  # upwards is less
    scores = [one.score or 0 for one in tiny.TRIALS if one.strategy == "partial"]
    assert sorted(range(4), key=heights.__getitem__) == sorted(range(4), key=lambda i: -scores[i])


def test_looks_at_one_candidate_are_joined_and_failures_crossed() -> None:
    drawing = str(chart(tiny.searched(result())))
    assert drawing.count('class="rungs c4"') == 1 and drawing.count('class="failed"') == 1


def test_a_score_far_below_stands_at_the_edge_with_its_number() -> None:
    drawing = str(chart(tiny.searched(result())))
    assert "↓ 58.1%" in drawing and drawing.count("↓") == 1
    heights = [float(y) for marks in re.findall(r'd="(M[^"]*)" class="point', drawing) for y in
               re.findall(r"M[\d.]+ ([\d.]+)", marks)]  # fmt: skip
    assert TOP <= min(heights) and max(heights) == HEIGHT - BOTTOM
    near = tuple(replace(one, score=one.score and max(one.score, 0.82)) for one in tiny.TRIALS)
    assert "↓" not in str(chart(tiny.searched(result(), near)))


def test_time_is_accounted_for_to_the_last_second() -> None:
    found = tiny.searched(result())
    spent = spending(found)
    assert [one.name for one in spent] == [*strategies(found.trials), None]
    assert sum(one.seconds for one in spent) == pytest.approx(found.seconds["total"])
    assert sum(one.trials for one in spent) == len(found.trials)
    # more in trials than in all: clocks may differ by a little
    assert spending(replace(found, seconds={"total": 1.0}))[-1].name == "lora"


def test_searches_of_one_trial_of_failures_alone_or_of_equal_scores_are_drawn() -> None:
    failed = tiny.TRIALS[7]
    for trials in ((tiny.TRIALS[0],), (failed, failed), (tiny.TRIALS[0], tiny.TRIALS[0])):
        html = render(tiny.searched(result(), trials))
        assert not re.search(r"\bnan\b", html)
    zero = replace(tiny.TRIALS[0], seconds=0.0)
    assert "nan" not in str(chart(tiny.searched(result(), (zero,))))
    no_number = replace(tiny.TRIALS[0], score=float("nan"), log_loss=float("nan"))
    assert not re.search(r"\bnan\b", render(tiny.searched(result(), (no_number, tiny.TRIALS[1]))))


def test_many_trials_fold_away_and_are_all_there() -> None:
    many = tuple(replace(tiny.TRIALS[1], reason=f"reason number {i}") for i in range(60))
    text = Page(render(tiny.searched(result(), many))).text
    assert "40 more trials" in text and all(f"reason number {i}" in text for i in range(60))


def test_the_model_is_called_by_what_was_chosen(html: str) -> None:
    assert "auto (partial)" in Page(html).text


def test_what_was_not_tried_is_said_once() -> None:
    found = tiny.searched(result())
    html = render(replace(found, settings={**found.settings, "not_tried": ["full", "lora (rank 8)"]}))
    assert html.count("lora (rank 8)") == 1 and "Not tried, for lack of time" in html
    assert "Not tried" not in render(found)


def test_the_words_of_a_search_name_what_was_not_tried() -> None:
    found = tiny.searched(result())
    said = "\n".join(
        model_in_words(replace(found, settings={**found.settings, "not_tried": ["full", "lora"]}))
    )
    assert "not tried, for lack of time: full, lora" in said
    assert "not tried" not in "\n".join(model_in_words(found))


def test_words_are_silent_about_an_epoch_that_nothing_chose() -> None:
    found = tiny.tuned(result())
    settings = {name: value for name, value in found.settings.items() if name != "kept_epoch"}
    said = "\n".join(model_in_words(replace(found, settings=settings)))
    assert "trained 10 epochs (no better any more)" in said and "None" not in said


def test_trials_are_not_listed_among_the_settings(html: str) -> None:
    record = html[html.index('id="provenance"') :]
    assert "no clear lead" not in record and "partial" in record


def hostile(text: str) -> Result:
    """`text` wherever a trial can hold one; two strategies, so that no name is taken for another."""
    one = Trial(text, {text: text}, 0, 10, 0.5, 0.7, 1.0, "chosen", text)
    other = Trial(f"{text} 2", {"a": [text]}, 0, 10, None, None, 1.0, "failed", text)
    return tiny.searched(result(), (one, other))


SHAPE = [(tag, sorted(attributes)) for tag, attributes in Page(render(hostile("plain"))).elements]


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_of_a_trial_changes_the_page(text: str) -> None:
    html = render(hostile(text))
    assert [(tag, sorted(attributes)) for tag, attributes in Page(html).elements] == SHAPE
    assert "<script" not in html
