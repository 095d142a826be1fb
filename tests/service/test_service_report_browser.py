"""A report as the service sends it, in a real browser: seen and heard, and it can do nothing else."""

import base64
import io
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from graftwork import sounds
from graftwork.service.database.tables import OPERATOR
from tiny_listening import listening
from tiny_models import service_with_models, toy_artefact
from tiny_service import key_of

pytestmark = pytest.mark.browser
LONG_MS = 120_000
SEEN = """async () => {
    const sound = document.querySelector('audio'), picture = document.querySelector('img.own');
    const at = Date.now();
    while (Date.now() - at < 120000 && !(sound.readyState >= 1 && picture.complete)) {
        await new Promise(done => setTimeout(done, 20));
    }
    return {
        sound: sound.duration, picture: picture.naturalWidth, title: document.title, origin: self.origin,
        colour: getComputedStyle(document.querySelector('p')).color,
    };
}"""


def page(elsewhere: str) -> str:
    """What reports are made of, and what nobody should be able to put into one."""
    out = io.BytesIO()
    Image.new("RGB", (7, 5)).save(out, "PNG")
    picture = base64.b64encode(out.getvalue()).decode()
    sound = base64.b64encode(sounds.encode(np.sin(np.linspace(0, 300, 8_000)), 8_000)).decode()
    return f"""<!doctype html><title>report</title><style>p {{ color: rgb(1, 2, 3) }}</style><p>text
        <img class="own" src="data:image/png;base64,{picture}">
        <audio controls preload="metadata" src="data:audio/wav;base64,{sound}"></audio>
        <script>document.title = 'taken over'</script>
        <img src="{elsewhere}/v1/usage" onerror="document.title = 'taken over'">
        <link rel="stylesheet" href="{elsewhere}/x.css"><iframe src="{elsewhere}/"></iframe>
        <meta http-equiv="refresh" content="0;url={elsewhere}/v1/keys">"""


def test_a_report_is_seen_and_heard_and_can_do_nothing_else(tmp_path: Path) -> None:
    chromium = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no chromium on this machine")
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed (extra dev)")
    service = service_with_models(tmp_path)
    key = key_of(service, OPERATOR)
    with listening(service) as url, playwright.sync_playwright() as driver:
        toy_artefact(tmp_path / "a.graft", report=page(url))
        quiet = ["--no-sandbox", "--disable-gpu"]
        browser = driver.chromium.launch(executable_path=chromium, args=quiet, timeout=LONG_MS)
        opened = browser.new_context(extra_http_headers={"Authorization": f"Bearer {key}"}).new_page()
        asked: list[str] = []
        opened.on("requestfinished", lambda request: asked.append(request.url))
        opened.goto(f"{url}/v1/models/a/report", timeout=LONG_MS)
        seen = opened.evaluate(SEEN)
        browser.close()
    assert seen["sound"] == pytest.approx(1.0, abs=0.1) and seen["picture"] == 7
    assert seen["colour"] == "rgb(1, 2, 3)"
    assert seen["title"] == "report" and seen["origin"] == "null"
    assert [one for one in asked if not one.startswith("data:")] == [f"{url}/v1/models/a/report"]
