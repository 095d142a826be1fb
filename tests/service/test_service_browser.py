"""The page in a real browser on a real server: from a zip to a prediction and a correction, and slips."""

import io
import random
import re
import shutil
import zipfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from PIL import Image, ImageDraw

import tiny_workbooks as books
from tiny_server import Running, running

if TYPE_CHECKING:
    from playwright.sync_api import Browser, BrowserContext, Page

pytestmark = pytest.mark.browser

QUIET = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --use-fake-ui-for-media-stream "
    "--use-fake-device-for-media-stream"
).split()
LONG_MS = 600_000
KINDS = ("circle", "cross", "square")
PHONE, DESKTOP = 390, 1280
# Elements past the right edge; strips may overhang by half a mark, and code scrolls inside its own box.
STICKING_OUT = """() => [...document.querySelectorAll('body *')].filter(e => {
    const box = e.getBoundingClientRect();
    return box.width > 1 && box.right > innerWidth + 1 && !e.closest('svg, pre, .wide, .unseen, .skip');
}).map(e => e.tagName + '.' + (e.getAttribute('class') || '') + ' ' + e.textContent.slice(0, 40))"""


def picture(kind: str, seed: int) -> bytes:
    """A drawn shape of 28 x 28, as PNG."""
    rng = random.Random(f"{kind} {seed}")
    drawn = Image.new("L", (28, 28), 0)
    pen = ImageDraw.Draw(drawn)
    x, y, size = rng.randint(4, 8), rng.randint(4, 8), rng.randint(12, 16)
    box = (x, y, x + size, y + size)
    if kind == "circle":
        pen.ellipse(box, outline=255, width=2)
    elif kind == "square":
        pen.rectangle(box, outline=255, width=2)
    else:
        pen.line(box, fill=255, width=3)
        pen.line((x + size, y, x, y + size), fill=255, width=3)
    for _ in range(30):
        drawn.putpixel((rng.randrange(28), rng.randrange(28)), rng.randrange(40, 160))
    kept = io.BytesIO()
    drawn.save(kept, "PNG")
    return kept.getvalue()


def zipped(kinds: Sequence[str], each: int = 14) -> bytes:
    kept = io.BytesIO()
    with zipfile.ZipFile(kept, "w") as archive:
        for kind in kinds:
            for i in range(each):
                archive.writestr(f"{kind}/{i:02}.png", picture(kind, i))
    return kept.getvalue()


def file(name: str, content: bytes, media: str = "application/octet-stream") -> Any:
    return {"name": name, "mimeType": media, "buffer": content}


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


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Running]:
    root = tmp_path_factory.mktemp("root")
    with running(root, tmp_path_factory.mktemp("home"), workers=1) as found:
        yield found


@pytest.fixture(scope="module")
def signed_in(browser: "Browser", server: Running) -> Any:
    """The cookies of a browser that has opened the one-time link."""
    with visit(browser, server) as page:
        page.goto(server.said["link"] or f"{server.url}/sign-in")
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{server.url}/")
        return page.context.storage_state()


@contextmanager
def visit(
    browser: "Browser", server: Running, state: Any = None, width: int = DESKTOP, **more: Any
) -> "Iterator[Page]":
    """A page of its own; at its end nothing may have been complained of, and nothing asked of other sites."""
    context: BrowserContext = browser.new_context(
        viewport={"width": width, "height": 844}, storage_state=state, **{"locale": "en-GB", **more}
    )
    context.set_default_timeout(LONG_MS)
    context.grant_permissions(["microphone", "camera"], origin=server.url)
    page = context.new_page()
    complaints: list[str] = []
    strangers: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on("console", lambda said: complaints.append(said.text) if "Content Security" in said.text else None)
    page.on(
        "request",
        lambda asked: (
            strangers.append(asked.url) if not asked.url.startswith((server.url, "blob:")) else None
        ),
    )
    page.on("dialog", lambda dialog: (complaints.append(dialog.message), dialog.dismiss()))
    yield page
    context.close()
    assert complaints == []
    assert strangers == []


def bring(page: "Page", server: Running, *files: Any) -> None:
    """Drop files, and wait for the dataset that comes of them, or for what was wrong with them."""
    page.goto(server.url)
    page.set_input_files("#file", list(files))
    page.wait_for_selector("#drop-wrong p, [data-state=ready], [data-state=refused]")
    page.wait_for_load_state()  # the rest of the page that came with it


@pytest.fixture(scope="module")
def model(browser: "Browser", server: Running, signed_in: Any) -> str:
    """The address of a model, made as a visitor makes it: a zip, a name, a budget, the job, its result."""
    with visit(browser, server, signed_in) as page:
        bring(page, server, file("shapes.zip", zipped(KINDS)))
        assert "42" in page.inner_text(".facts")
        assert page.locator(".bars li").count() == 3
        page.fill("#fit-name", "Shapes drawn")
        page.get_by_role("button", name="Start learning").click()
        page.wait_for_url("**/jobs/*")
        page.wait_for_selector("#stages li, .verdict")
        page.wait_for_selector(".verdict")
        page.wait_for_load_state()
        assert re.search(r"interval .* to .*on repeated folds of 42 rows", page.inner_text(".verdict"))
        assert "scratch comes with the longer plans" in page.inner_text(".verdict")
        page.get_by_role("link", name="Try the model").click()
        page.wait_for_url("**/models/*")
        return page.url


def test_a_picture_is_answered_and_a_wrong_answer_corrected(
    browser: "Browser", server: Running, signed_in: Any, model: str
) -> None:
    with visit(browser, server, signed_in) as page:
        page.goto(model)
        page.set_input_files("#file", file("new.png", picture("circle", 99), "image/png"))
        page.wait_for_selector("#reply:not([hidden])")
        assert page.inner_text("#answer") == "circle"
        shares = [
            float(one.strip("<> %")) for one in page.locator("#probabilities .number").all_inner_texts()
        ]
        assert shares == sorted(shares, reverse=True) and abs(sum(shares) - 100) < 0.5
        page.fill("#truth", "Square")
        page.get_by_role("button", name="Add to the data").click()
        page.get_by_text("Added to the data as square. 1 correction is in the data.").wait_for()
        page.get_by_role("button", name="Learn again").click()
        page.wait_for_url("**/jobs/*")
        page.wait_for_selector(".verdict")
        page.wait_for_load_state()
        page.get_by_role("link", name="the data").click()
        assert "Corrections\n1" in page.inner_text(".facts")
        assert page.locator(".card").count() == 2


def test_what_is_no_picture_is_told_beside_the_question(
    browser: "Browser", server: Running, signed_in: Any, model: str
) -> None:
    with visit(browser, server, signed_in) as page:
        page.goto(model)
        page.set_input_files("#file", file("new.png", b"not at all", "image/png"))
        page.wait_for_selector("#try-wrong p")
        assert page.is_hidden("#reply")
        page.set_input_files("#file", file("new.png", picture("cross", 99), "image/png"))
        page.wait_for_selector("#reply:not([hidden])")
        assert page.inner_text("#try-wrong") == ""


def test_the_report_is_shown_and_runs_nothing(
    browser: "Browser", server: Running, signed_in: Any, model: str
) -> None:
    with visit(browser, server, signed_in) as page:
        page.goto(model)
        frame = page.locator("iframe")
        frame.scroll_into_view_if_needed()
        assert frame.get_attribute("sandbox") == ""
        page.frame_locator("iframe").locator("h1").wait_for()


def test_the_lines_to_copy_are_of_this_server_and_model(
    browser: "Browser", server: Running, signed_in: Any, model: str
) -> None:
    with visit(browser, server, signed_in) as page:
        page.goto(model)
        for lines in page.locator(".code pre").all_inner_texts():
            assert server.url in lines and "Shapes drawn" in lines and "YOUR_KEY" in lines
        page.locator(".code button").first.click()
        page.get_by_text("Copied").wait_for()


def test_a_model_is_renamed_and_deleted_after_a_question(
    browser: "Browser", server: Running, signed_in: Any, model: str
) -> None:
    with visit(browser, server, signed_in) as page:
        page.goto(model)
        page.get_by_role("button", name="Rename").click()
        page.fill("#new-name", "a/b")
        page.locator("#rename [data-yes]").click()
        page.locator("#rename .wrong p").first.wait_for()
        page.fill("#new-name", "Drawn shapes")
        page.locator("#rename [data-yes]").click()
        page.get_by_role("heading", name="Drawn shapes").wait_for()
        page.get_by_role("button", name="Delete this model").click()
        page.get_by_role("button", name="Keep it").click()
        page.reload()
        assert page.inner_text("#name") == "Drawn shapes"


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ([file("notes.docx", b"PK hello")], "neither a zip nor a table"),
        ([file("empty.zip", b"")], "is empty"),
        ([file("one.png", picture("cross", 1), "image/png")], "not sorted into classes"),
        ([file("a.zip", b"1"), file("b.zip", b"2")], "Drop one zip or one table"),
        ([file("bare.zip", zipped([]))], "no files"),
        ([file("one.zip", zipped(["circle"]))], "one class"),
        ([file("sham.zip", b"no archive at all")], "zip"),
    ],
    ids=["type", "empty", "unsorted", "two", "bare", "one class", "sham"],
)
def test_a_slip_is_told_in_words(
    browser: "Browser", server: Running, signed_in: Any, files: list[Any], said: str
) -> None:
    with visit(browser, server, signed_in) as page:
        bring(page, server, *files)
        page.locator(".wrong p", has_text=said).first.wait_for()


def test_columns_are_chosen_where_they_cannot_be_guessed(
    browser: "Browser", server: Running, signed_in: Any
) -> None:
    rows = "".join(f"lovely and kind {i},good,{i}x\nawful and late {i},bad,{i}y\n" for i in range(12))
    with visit(browser, server, signed_in) as page:
        bring(page, server, file("table.csv", f"words,what,other\n{rows}".encode(), "text/csv"))
        page.select_option("#column-label", "what")
        page.select_option("#column-text", "words")
        page.get_by_role("button", name="Look again").click()
        page.wait_for_selector("[data-state=ready]")
        assert "Texts" in page.inner_text(".facts")


def test_a_workbook_is_dropped_in_chinese(browser: "Browser", server: Running, signed_in: Any) -> None:
    tickets = [
        ["内容", "类别"],
        *([f"第{i}单很快到了", "好评"] for i in range(6)),
        *([f"{i}号还没送到", "差评"] for i in range(6)),
    ]
    book = books.xlsx({"工单": tickets, "旧工单": tickets})
    with visit(browser, server, signed_in, locale="zh-CN") as page:
        bring(page, server, file("工单.et", b"of another program"))
        assert ".xlsx" in page.inner_text("#drop-wrong")
        bring(page, server, file("工单.xlsx", book))
        page.wait_for_selector("[data-state=ready]")
        shown = page.inner_text("main")
        assert "有数据的工作表中读取了 '工单'" in shown and "'旧工单'" in shown
        assert "12" in page.inner_text(".facts") and "文本" in page.inner_text(".facts")


def test_files_are_picked_class_by_class_and_the_job_cancelled_in_two_tabs(
    browser: "Browser", server: Running, signed_in: Any
) -> None:
    hostile = "<img src=x onerror=alert(1)>"
    with visit(browser, server, signed_in) as page:
        page.goto(server.url)
        page.get_by_text("Or pick files for each class").click()
        page.fill("#set-name", hostile)
        page.get_by_role("button", name="Upload and look at it").click()
        page.get_by_text("Name two classes at least").wait_for()
        for i, name in enumerate((hostile, "square")):
            page.locator(".class-name").nth(i).fill(name)
            pictures = [file(f"{j}.png", picture(KINDS[2 * i], j), "image/png") for j in range(12)]
            page.locator(".class-row input[type=file]").nth(i).set_input_files(pictures)
        page.locator(".thumbs img").nth(19).wait_for()
        page.get_by_role("button", name="Upload and look at it").click()
        page.wait_for_selector("[data-state=ready]")
        assert hostile in page.inner_text(".bars")
        page.locator(".choice:has([value='30m'])").click()  # it does not end before it is cancelled
        page.get_by_role("button", name="Start learning").click()
        page.wait_for_url("**/jobs/*")
        other = page.context.new_page()
        other.goto(page.url)
        page.get_by_role("button", name="Cancel").click()
        for tab in (page, other):
            tab.wait_for_selector("[data-terminal=yes]")
            tab.wait_for_load_state()
            assert "cancelled" in tab.inner_text("#state")


def test_a_wrong_key_does_not_sign_in_and_a_new_one_does(
    browser: "Browser", server: Running, signed_in: Any
) -> None:
    with visit(browser, server, signed_in) as page:
        page.goto(f"{server.url}/settings")
        page.fill("#key-name", "till")
        page.get_by_role("button", name="Create the key").click()
        page.wait_for_selector("#made:not([hidden])")
        key = page.inner_text("#secret")
        page.reload()
        assert key not in page.content()
        page.fill("#key-name", "lost")
        page.get_by_role("button", name="Create the key").click()
        page.wait_for_selector("#made:not([hidden])")
        lost = page.inner_text("#secret")
        page.reload()
        page.get_by_role("row", name="lost").get_by_role("button").click()
        page.locator("#revoke [data-yes]").click()
        page.get_by_role("row", name="lost").wait_for(state="detached")
    with visit(browser, server) as page:
        page.goto(f"{server.url}/models")
        for wrong in ("gw_wrong", lost):
            page.fill("#key", wrong)
            page.get_by_role("button", name="Sign in").click()
            page.get_by_text("not known here").wait_for()
        page.fill("#key", key)
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{server.url}/models")  # what was asked for before
        page.goto(server.url)
        assert page.locator("#drop").count() == 0  # it may only ask
        page.goto(f"{server.url}/settings")
        page.get_by_role("button", name="Sign out").click()
        page.wait_for_url("**/sign-in")


def test_what_is_recorded_is_a_wav_file(browser: "Browser", server: Running, signed_in: Any) -> None:
    with visit(browser, server, signed_in) as page:
        page.goto(server.url)
        said = page.evaluate(
            """async () => {
                const { record } = await import('/static/recording.js');
                let running;
                await new Promise(async resolve => {
                    const heard = seconds => { if (seconds >= 0.7) resolve(); };
                    running = await record('/static/recorder.js', heard, resolve);
                });
                const file = await running.stop();
                return [file.type, [...new Uint8Array(await file.arrayBuffer())]];
            }"""
        )
    import soundfile

    samples, rate = soundfile.read(io.BytesIO(bytes(said[1])))
    assert said[0] == "audio/wav"
    assert samples.ndim == 1 and rate >= 8000
    assert len(samples) / rate >= 0.7 and abs(samples).max() > 0


@pytest.mark.parametrize("width", [PHONE, DESKTOP])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_pages_fit_the_screen_and_can_be_read(
    browser: "Browser", server: Running, signed_in: Any, model: str, width: int, scheme: Any
) -> None:
    with visit(browser, server, signed_in, width, color_scheme=scheme) as page:
        for address in (
            "/",
            "/datasets",
            "/models",
            "/jobs",
            "/settings",
            "/nothing",
            *links(page, server, model),
        ):
            page.goto(address if address.startswith("http") else server.url + address)
            page.evaluate("document.querySelectorAll('details').forEach(one => one.open = true)")
            assert page.evaluate(STICKING_OUT) == [], address
            assert page.evaluate("document.documentElement.scrollWidth") <= width, address
            assert page.evaluate(UNNAMED) == [], address
            assert page.evaluate(FAINT) == [], address


def links(page: "Page", server: Running, model: str) -> list[str]:
    page.goto(f"{server.url}/jobs")
    jobs = page.locator(".list a").evaluate_all("all => all.map(one => one.href)")
    page.goto(f"{server.url}/datasets")
    return [model, *jobs[:4], *page.locator(".list a").evaluate_all("all => all.map(one => one.href)")[:4]]


# What can be used but has no name that is read aloud.
UNNAMED = """() =>
    [...document.querySelectorAll('input, select, textarea, button, a[href], iframe, progress')]
    .filter(e => e.checkVisibility() && e.type !== 'hidden')
    .filter(e => !(e.labels?.length || e.getAttribute('aria-label') || e.getAttribute('aria-labelledby')
        || e.title || e.textContent.trim()))
    .map(e => e.outerHTML.slice(0, 120))"""
# Texts whose contrast with the nearest opaque ground is below 4.5 (3 for large ones).
FAINT = """() => {
    const canvas = new OffscreenCanvas(1, 1).getContext('2d', { willReadFrequently: true });
    const rgb = colour => {
        canvas.clearRect(0, 0, 1, 1); canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1);
        return [...canvas.getImageData(0, 0, 1, 1).data]; };
    const light = c => c.slice(0, 3).map(v => v / 255)
        .map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4)
        .reduce((sum, v, i) => sum + v * [0.2126, 0.7152, 0.0722][i], 0);
    const ground = e => {
        for (; e; e = e.parentElement) {
            const c = rgb(getComputedStyle(e).backgroundColor);
            if (c[3] > 250) return c;
        }
        return rgb('Canvas'); };
    return [...document.querySelectorAll('body *')].filter(e => e.checkVisibility() && !e.disabled
        && !e.closest('svg') && [...e.childNodes].some(n => n.nodeType === 3 && n.textContent.trim()))
        .filter(e => { const style = getComputedStyle(e), a = light(rgb(style.color)), b = light(ground(e));
            const least = parseFloat(style.fontSize) >= 24 ? 3 : 4.5;
            return (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05) < least; })
        .map(e => e.className + ' ' + e.textContent.slice(0, 40));
}"""


def test_chinese_pages_hold_no_english_sentences(
    browser: "Browser", server: Running, signed_in: Any, model: str
) -> None:
    with visit(browser, server, signed_in, locale="zh-CN") as page:
        for address in (server.url, f"{server.url}/settings", model, *links(page, server, model)[1:3]):
            page.goto(address)
            shown = re.sub(r"(?s)curl .*", "", page.inner_text("main"))
            assert re.search(r"[\u4e00-\u9fff]", shown)
            assert not re.findall(r"\b[A-Za-z]+ (?:the|of|is|are|to|and|a) [a-z]+", shown), address


def test_everything_is_deleted_once_the_word_is_typed(browser: "Browser", tmp_path: Path) -> None:
    root = tmp_path / "root"
    root.mkdir()
    with running(root, tmp_path, workers=1) as server, visit(browser, server) as page:
        page.goto(server.said["link"])
        page.get_by_role("button", name="Sign in").click()
        page.wait_for_url(f"{server.url}/")
        bring(page, server, file("shapes.zip", zipped(KINDS, 4)))
        page.goto(f"{server.url}/settings")
        page.get_by_role("button", name="Delete everything").first.click()
        yes = page.locator("#wipe [data-yes]")
        assert yes.is_disabled()
        page.fill("#wipe-typed", "delete")
        yes.click()
        page.wait_for_url(f"{server.url}/")
        page.goto(f"{server.url}/datasets")
        page.get_by_text("No data yet").wait_for()
