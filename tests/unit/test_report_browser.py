"""The report in a real browser: fits a phone, is quiet, asks the network for nothing, runs nothing."""

import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from test_report import HOSTILE, LABELS, audible, heard, poisoned, result

import tiny_trials
from graftwork.records import Result
from graftwork.report import render

if TYPE_CHECKING:
    from playwright.sync_api import Browser

pytestmark = pytest.mark.browser

PHONE, DESKTOP = 390, 1280
LONG_MS = 120_000
QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
).split()


def long() -> Result:
    """Sixty classes with names far wider than a phone, with and without places to break."""
    labels = tuple(
        f"第{i}类非常长的中文标签名称用于测试换行与排版效果" if i % 2 else f"{i}_" + "unbroken" * 12
        for i in range(60)
    )
    return result(labels=labels, name="n" * 200)


RESULTS: dict[str, Result] = {
    "helped": result("helped"),
    "hurt": result("hurt"),
    "undecided": result("undecided"),
    "none": replace(result(), verdict=None, no_verdict="no baseline was asked for"),
    "folds": replace(result(), assessed_on="folds"),
    "two classes": result(labels=LABELS[:2]),
    "twelve classes": result(labels=tuple(f"class number {i}" for i in range(12))),
    "twenty classes": result(labels=tuple(f"class number {i}" for i in range(20))),
    "long names": long(),
    "recordings": audible(*[heard()] * 5),
    "searched": tiny_trials.searched(result()),
    "searched, long names": tiny_trials.searched(
        result(),
        tuple(
            replace(one, strategy=f"{one.strategy}_" + "unbroken" * 8, settings={"block": "encoder." * 9})
            for one in tiny_trials.TRIALS
        ),
    ),
    "stopped": tiny_trials.tuned(result(), trouble="no number " * 40, block="encoder.layers." * 6),
    **{f"hostile {i}": poisoned(text) for i, text in enumerate(HOSTILE)},
}


@dataclass
class Visit:
    """What came of opening one page: what it said on the console, and what it asked for."""

    width: int
    scroll_width: int
    title: str
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    sticking_out: list[str] = field(default_factory=list)
    dialogs: list[str] = field(default_factory=list)


@pytest.fixture(scope="module")
def browser() -> "Iterator[Browser]":
    path = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)")
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=path, args=QUIET, timeout=LONG_MS)
        yield opened
        opened.close()


# Elements past the right edge; strips may overhang by half a mark, and the clipped ones are one pixel wide.
_STICKING_OUT = """() => [...document.querySelectorAll('body *')].filter(e => {
    const box = e.getBoundingClientRect();
    return box.width > 1 && box.right > innerWidth + 1 && !e.closest('svg.strip, .unseen');
}).map(e => e.tagName + '.' + (e.getAttribute('class') || '') + ' ' + e.textContent.slice(0, 40))"""


def visit(
    browser: "Browser", html: str, folder: Path, width: int, scheme: Any = "light", bypass: bool = False
) -> Visit:
    """Open `html`, unfold everything in it, and look. `bypass` switches its own policy off."""
    file = folder / "report.html"
    file.write_text(html, encoding="utf-8")
    context = browser.new_context(
        viewport={"width": width, "height": 900}, color_scheme=scheme, bypass_csp=bypass
    )
    page = context.new_page()
    seen = Visit(width, 0, "")
    page.on("console", lambda message: seen.console.append(message.text))
    page.on("pageerror", lambda error: seen.console.append(str(error)))
    page.on("request", lambda request: seen.requests.append(request.url))
    page.on("dialog", lambda dialog: (seen.dialogs.append(dialog.message), dialog.dismiss()))
    page.goto(file.as_uri(), timeout=LONG_MS)
    page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
    seen.scroll_width = page.evaluate("document.documentElement.scrollWidth")
    seen.sticking_out = page.evaluate(_STICKING_OUT)
    seen.title = page.title()
    context.close()
    return seen


@pytest.mark.parametrize("name", RESULTS)
def test_report_fits_a_phone_and_is_quiet(browser: "Browser", tmp_path: Path, name: str) -> None:
    seen = visit(browser, render(RESULTS[name]), tmp_path, PHONE)
    assert seen.scroll_width == PHONE
    assert seen.sticking_out == []
    assert seen.console == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_report_fits_a_desktop(browser: "Browser", tmp_path: Path, scheme: str) -> None:
    seen = visit(browser, render(RESULTS["long names"]), tmp_path, DESKTOP, scheme)
    assert (seen.scroll_width, seen.sticking_out, seen.console) == (DESKTOP, [], [])


def test_report_asks_for_nothing_but_itself(browser: "Browser", tmp_path: Path) -> None:
    seen = visit(browser, render(result()), tmp_path, PHONE)
    assert [url for url in seen.requests if not url.startswith("data:image/png;base64,")] == [
        (tmp_path / "report.html").as_uri()
    ]


_PLAYED = """async () => {
    const sound = document.querySelector('audio');
    await new Promise(done => {
        sound.onloadedmetadata = sound.onerror = done;
        if (sound.readyState > 0 || sound.error) done();
    });
    sound.muted = true;
    await sound.play();
    return [sound.duration, sound.error, sound.getBoundingClientRect().height];
}"""


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
def test_a_recording_plays(browser: "Browser", tmp_path: Path, width: int) -> None:
    file = tmp_path / "report.html"
    file.write_text(render(audible(heard(0.5))), encoding="utf-8")
    context = browser.new_context(viewport={"width": width, "height": 900})
    page = context.new_page()
    said: list[str] = []
    page.on("console", lambda message: said.append(message.text))
    page.goto(file.as_uri(), timeout=LONG_MS)
    duration, error, height = page.evaluate(_PLAYED)
    context.close()
    assert (duration, error, said) == (0.5, None, []) and height >= 40


@pytest.mark.parametrize("text", HOSTILE)
def test_hostile_text_runs_nothing_even_without_the_policy(
    browser: "Browser", tmp_path: Path, text: str
) -> None:
    seen = visit(browser, render(poisoned(text)), tmp_path, PHONE, bypass=True)
    assert seen.dialogs == [] and seen.console == []
    assert seen.title.startswith("Transfer hurt: ")


def test_policy_stops_a_script_and_a_foreign_picture(browser: "Browser", tmp_path: Path) -> None:
    foreign = "<script>document.title='owned'</script><img src='http://127.0.0.1:9/x.png'></main>"
    seen = visit(browser, render(result()).replace("</main>", foreign), tmp_path, PHONE)
    assert seen.title == "Transfer helped: wardrobe"
    assert len([one for one in seen.console if "Content Security Policy" in one]) == 2


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_from_its_ground(browser: "Browser", tmp_path: Path, scheme: Any) -> None:
    """Contrast of ordinary, quiet and linked text of at least 4.5 to 1 (WCAG 2, level AA)."""
    file = tmp_path / "report.html"
    file.write_text(render(result("undecided")), encoding="utf-8")
    context = browser.new_context(color_scheme=scheme)
    page = context.new_page()
    page.goto(file.as_uri(), timeout=LONG_MS)
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    for selector in ("p", ".between", ".note", "a", "summary", "h1 .icon", ".strip text"):
        kind = "fill" if selector.endswith("text") else "color"
        ink = page.evaluate(f"getComputedStyle(document.querySelector('{selector}')).{kind}")
        assert contrast(ink, ground) >= 4.5, selector
    context.close()


def contrast(first: str, second: str) -> float:
    """WCAG contrast ratio of two colours written rgb(r, g, b)."""
    lighter, darker = sorted((_luminance(first), _luminance(second)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: str) -> float:
    channels = [int(one) / 255 for one in colour.removeprefix("rgb(").rstrip(")").split(",")]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
