"""The ranking in a real browser: fits a phone and a desktop, is quiet, asks the network for nothing."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from test_ranking_report import poisoned
from test_report import HOSTILE, result
from test_report_browser import DESKTOP, PHONE, browser, visit

import tiny_ranking as tiny
from graftwork.records import Ranking
from graftwork.report import render, render_ranking

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser
__all__ = ["browser"]


def long() -> Ranking:
    """Names far wider than a phone, with and without places to break."""
    one = tiny.ranking()
    names = ("owner/" + "unbroken" * 12, "非常长的来源名称" * 6, "a name of many words " * 5, "short")
    candidates = tuple(
        replace(candidate, name=name, licence=name)
        for candidate, name in zip(one.candidates, names, strict=True)
    )
    return replace(one, choice=names[0], candidates=candidates, refused={names[0]: names[1]})


PAGES = {
    "clear": render_ranking(tiny.ranking(), "clothing10"),
    "nothing": render_ranking(tiny.nothing(), "clothing10"),
    "beaten": render_ranking(tiny.beaten(), "waimai_zh"),
    "long names": render_ranking(long(), "n" * 200),
    "hostile": render_ranking(poisoned(HOSTILE[1]), HOSTILE[0]),
    "in a report": render(replace(result(), ranking=long())),
}


VISITS = [(name, PHONE, "light") for name in PAGES]
VISITS += [("long names", 720, "light"), ("long names", DESKTOP, "dark"), ("in a report", DESKTOP, "light")]


@pytest.mark.parametrize(("name", "width", "scheme"), VISITS)
def test_ranking_fits_and_is_quiet(
    browser: "Browser", tmp_path: Path, name: str, width: int, scheme: Any
) -> None:
    seen = visit(browser, PAGES[name], tmp_path, width, scheme)
    assert (seen.scroll_width, seen.sticking_out, seen.console, seen.dialogs) == (width, [], [], [])
    assert all(url.startswith(("file:", "data:")) for url in seen.requests)
