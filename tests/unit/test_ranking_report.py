"""The ranking in the report, on a page of its own and in the terminal says all that was measured."""

import math
import re
from dataclasses import replace

import pytest
from test_report import HOSTILE, ORDER, Page, result

import tiny_ranking as tiny
from graftwork.records import Ranking, Score, Transferability
from graftwork.report import render, render_ranking
from graftwork.words import ranking_in_words

FIGURES = (
    "86.1%", "84.0–88.0%", "83.7%", "80.6–86.6%", "76.3%", "73.0%", "94%", "6%", "below 1%",
    "0.1", "2.5", "9.9", "13.2", "31.4 s", "12.6 s", "9.9 s", "820 ms", "31.2 MB", "8.9 MB", "852 kB",
    "71", "322", "2,012", "1,408", "256", "65.2%", "62.9–67.5%", "2,190", "400 rows", "58.3 s", "2 min 00 s",
    "0.010", "−1.234", "41.3", "39.3", "−0.679", "0.020",
)  # fmt: skip
WORDS = (
    *tiny.NAMES, "apache-2.0", "cc-by-nc-4.0", "mit", "not stated", "no commercial use", "log evidence",
    "LEEP", "takes recordings, the data are images", "its files are gone", "+18.1 to +23.7",
)  # fmt: skip


@pytest.fixture(scope="module")
def html() -> str:
    return render_ranking(tiny.ranking(), "clothing10")


def test_every_figure_and_word_is_on_the_page_and_in_a_fits_report(html: str) -> None:
    for text in (Page(html).text, Page(render(replace(result(), ranking=tiny.ranking()))).text):
        for said in (*FIGURES, *WORDS):
            assert said in text, said
        for reason in tiny.REASONS:
            assert reason[1:] in text


def test_sources_stand_in_the_order_of_the_ranking_and_the_chosen_one_is_marked(html: str) -> None:
    places = [html.index(f"{name}</bdi>", html.index("forest ranks")) for name in tiny.NAMES]
    assert places == sorted(places)
    (chosen,) = re.findall(r'<div class="row ours"><span class="what"><bdi>(.*?)</bdi>', html)
    assert chosen == tiny.NAMES[0]


def test_fit_shows_the_ranking_after_the_scores_and_only_where_there_is_one() -> None:
    with_it = Page(render(replace(result(), ranking=tiny.ranking()))).sections
    assert with_it == [*ORDER[:2], "source", *ORDER[2:]]
    assert "source" not in Page(render(result())).sections


@pytest.mark.parametrize(
    ("ranking", "said"),
    [
        (tiny.ranking(), "Start from efficient-photos"),
        (tiny.nothing(), "Nothing stands out"),
        (tiny.beaten(), "No source beats not transferring"),
        (tiny.unsure(), "efficient-photos comes first"),
    ],
)
def test_headline_is_what_was_found(ranking: Ranking, said: str) -> None:
    html = render_ranking(ranking, "data")
    assert said in Page(html).text and f"<title>{said}: data</title>" in html


def test_nothing_is_marked_as_chosen_where_nothing_stands_out() -> None:
    assert '"row ours"' not in render_ranking(tiny.nothing(), "data")
    assert not any(line.startswith("*") for line in ranking_in_words(tiny.nothing()).splitlines())


def test_not_transferring_is_a_line_through_every_strip_and_absent_where_unknown(html: str) -> None:
    assert html.count('class="without"') == len(tiny.NAMES) + 1  # and its key
    alone = render_ranking(replace(tiny.ranking(), baseline=None), "data")
    assert 'class="without"' not in alone and "Not transferring" not in alone


def test_a_licence_that_forbids_commercial_use_is_shown_on_that_source_alone(html: str) -> None:
    assert html.count("no commercial use") == 1
    assert html.index("cc-by-nc-4.0") < html.index("no commercial use") < html.index("not stated")
    assert ranking_in_words(tiny.ranking()).count("(no commercial use)") == 1


def test_single_scores_are_folded_away(html: str) -> None:
    folded = re.findall(r"<details>.*?</details>", html, re.DOTALL)
    assert sum("log evidence" in part for part in folded) == len(tiny.NAMES)
    assert "log evidence" not in re.sub(r"<details>.*?</details>", "", html, flags=re.DOTALL)


def test_page_needs_nothing_from_outside_and_runs_nothing(html: str) -> None:
    page = Page(html)
    assert not {"script", "link", "iframe", "object", "img", "form"} & {tag for tag, _ in page.elements}
    assert "default-src 'none'" in html and "http:" not in html and "https:" not in html
    for tag, attributes in page.elements:
        assert not [key for key in attributes if key.startswith("on") or key == "style"], (tag, attributes)
    ids = [attributes["id"] for _, attributes in page.elements if "id" in attributes]
    assert len(ids) == len(set(ids))


def poisoned(text: str) -> Ranking:
    """`text` wherever a source or a user can put one."""
    one = tiny.ranking()
    hostile = replace(
        one.candidates[0],
        name=text,
        licence=text,
        reason=text,
        scores=(Transferability(text, 1.0, 2.0, 0.1),),
    )
    return replace(one, choice=text, candidates=(hostile,), refused={text: text}, sentence=text)


@pytest.mark.parametrize("text", HOSTILE)
def test_no_text_changes_the_page_it_stands_in(text: str) -> None:
    def shape(html: str) -> list[tuple[str, list[str]]]:
        return [(tag, sorted(attributes)) for tag, attributes in Page(html).elements]

    html = render_ranking(poisoned(text), text)
    html.encode("utf-8")
    assert shape(html) == shape(render_ranking(poisoned("plain"), "plain"))


def test_sentence_begins_with_a_capital_unless_a_sources_name_begins_it() -> None:
    for sentence, shown in (
        ("mobilenet is first", "Mobilenet is first."),
        ("tiny_0.25: 0.7", "tiny_0.25: 0.7."),
    ):
        one = replace(tiny.ranking(), sentence=sentence)
        assert f"\n\n{shown}\n" in ranking_in_words(one)
        assert f"<bdi>{shown}</bdi>" in render_ranking(one, "data")


def test_sentence_does_not_say_the_headline_again() -> None:
    text = Page(render_ranking(tiny.nothing(), "data")).text
    assert text.count("othing stands out") == 2  # the title, and the headline
    assert "No source tells these labels apart (p = 0.42)." in text


def test_rows_of_the_model_without_transfer_are_said() -> None:
    assert "79.3% on 247 rows" in Page(render_ranking(tiny.unsure(), "data")).text


def test_numbers_that_do_not_exist_are_said_to_be_missing() -> None:
    nan = math.nan
    none = replace(
        tiny.candidate(0),
        expected=Score("accuracy", nan, nan, nan, 0),
        probability_best=nan,
        regret=nan,
        scores=(Transferability("evidence", nan, nan, nan),),
        rows_per_second=None,
    )
    text = Page(render_ranking(replace(tiny.ranking(), candidates=(none, tiny.candidate(1))), "data")).text
    assert not re.search(r"\bnan\b", text) and text.count("n/a") >= 6


def test_terminal_says_the_same_in_lines() -> None:
    said = ranking_in_words(tiny.ranking())
    for part in (
        *tiny.NAMES, *tiny.REASONS, "0.861 (0.840 to 0.880)", "94%", "2.5", "31.4 s", "8.9 MB", "2,012",
        "(not transferring)", "0.652", "lost                  its files are gone", "58.3 s",
    ):  # fmt: skip
        assert part in said, part
    assert said.splitlines()[1].startswith("*") and "  beats" not in said
    assert "\n\nBeats the model without transfer" in said
