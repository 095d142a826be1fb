"""The page by keyboard alone: from signing in to an answer, every step seen and read aloud."""

from typing import TYPE_CHECKING, Any

import pytest
from test_service_browser import KINDS, browser, file, picture, server, visit, zipped

from tiny_server import Running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, Page

__all__ = ["browser", "server"]
pytestmark = pytest.mark.browser
STOPS = 80
"""More places than any page has on which Tab stops."""
# Whether what has the focus shows it: an outline of its own, or of the box that stands for it, on the screen.
UNSEEN = """() => {
    const one = document.activeElement, box = one.getBoundingClientRect();
    const ring = e => {
        const style = getComputedStyle(e);
        return style.outlineStyle !== 'none' && parseFloat(style.outlineWidth) >= 2; };
    const inside = box.bottom > 0 && box.top < innerHeight && box.right > 0 && box.left < innerWidth;
    const boxes = [one, one.parentElement, one.parentElement?.parentElement];
    return inside && boxes.some(e => e && ring(e)) ? null : one.outerHTML.slice(0, 100);
}"""
LIVE = "e => e.closest('[aria-live], [role=alert], [role=status]') !== null"


def reach(page: "Page", wanted: str) -> None:
    """Press Tab until it has the focus; all that is passed on the way shows the focus too."""
    for _ in range(STOPS):
        page.keyboard.press("Tab")
        # the skip link and frames are drawn by the browser's own rules
        if page.evaluate("!document.activeElement.matches('body, iframe, audio, video')"):
            assert page.evaluate(UNSEEN) is None
        if page.evaluate("wanted => document.activeElement.matches(wanted)", wanted):
            return
    raise AssertionError(f"{wanted} is not reached by Tab")


def choose(page: "Page", wanted: str, chosen: Any) -> None:
    """Open the file dialogue of an input by a key, and take a file."""
    reach(page, wanted)
    with page.expect_file_chooser() as opened:
        page.keyboard.press("Enter")
    opened.value.set_files(chosen)


def test_a_model_is_made_and_asked_without_a_mouse(browser: "Browser", server: Running) -> None:
    with visit(browser, server, reduced_motion="reduce") as page:
        page.on("filechooser", lambda _: None)  # dialogues are held for us from the start, not from a wait on
        page.goto(f"{server.url}/settings")
        assert page.evaluate("document.activeElement.id") == "key"
        page.keyboard.type(server.key)
        page.keyboard.press("Enter")
        page.wait_for_url(f"{server.url}/settings")  # where one was going
        reach(page, ".brand")
        page.keyboard.press("Enter")
        page.wait_for_url(f"{server.url}/")
        reach(page, ".skip")
        page.keyboard.press("Enter")
        choose(page, "#file", file("shapes.zip", zipped(KINDS)))  # the first stop past the navigation
        page.wait_for_selector("[data-state=ready]")
        page.wait_for_load_state()
        reach(page, "#fit-name")
        page.keyboard.press("Control+A")
        page.keyboard.type("by hand")
        reach(page, "input[name=budget]")
        page.keyboard.press("ArrowDown")
        assert page.is_checked("input[value='5m']")
        page.keyboard.press("ArrowUp")
        assert page.is_checked("input[value=quick]")
        reach(page, "#advanced summary")
        page.keyboard.press("Space")
        assert page.is_visible("#fit-source")
        reach(page, "#fit > button")
        page.keyboard.press("Enter")
        page.wait_for_url("**/jobs/*")
        if page.locator("#stage").count():  # not yet done
            assert page.locator("#stage").evaluate(LIVE)
        page.wait_for_selector(".verdict")
        page.wait_for_load_state()
        reach(page, "a[href^='/models/']")
        page.keyboard.press("Enter")
        page.wait_for_url("**/models/*")
        page.wait_for_load_state()
        _ask(page)
        _dialogs(page)
        assert _moving(page) == 0


def _ask(page: "Page") -> None:
    choose(page, "#file", file("new.png", picture("circle", 99), "image/png"))
    page.wait_for_selector("#reply:not([hidden])")
    assert page.locator("#answer").evaluate(LIVE) and page.locator("#try-wrong").evaluate(LIVE)
    reach(page, "#truth")
    page.keyboard.type("square")
    page.keyboard.press("Enter")
    page.wait_for_selector("#refit:focus")


def _dialogs(page: "Page") -> None:
    """A dialog takes the focus, keeps it, and gives it back."""
    for opener, dialog in (("[data-opens=rename]", "#rename"), ("[data-opens=delete]", "#delete")):
        page.locator("#main").focus()
        reach(page, opener)
        page.keyboard.press("Enter")
        assert page.locator(f"{dialog}:focus-within").count() == 1
        for _ in range(5):
            page.keyboard.press("Tab")  # past its end the browser's own bar has its turn
            assert page.evaluate(f"document.activeElement.matches('{dialog} *, body')")
        page.keyboard.press("Escape")
        assert page.locator(dialog).is_hidden()
        assert page.evaluate("wanted => document.activeElement.matches(wanted)", opener)


def _moving(page: "Page") -> int:
    """Animations that go on although the reader asked for none."""
    moving: int = page.evaluate(
        "document.getAnimations().filter(one => one.effect.getTiming().duration > 10).length"
    )
    return moving
