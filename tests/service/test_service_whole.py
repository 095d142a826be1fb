"""The whole way in one process: a zip of class folders, its inspection, a fit, a prediction, a download."""

import io
import re
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest
from PIL import Image, ImageDraw
from sqlalchemy import select

import graftwork
from graftwork.client import Client, Event
from graftwork.service import work
from graftwork.service.artefacts import Artefacts
from graftwork.service.context import Service
from graftwork.service.database.tables import Owner
from graftwork.service.jobs import queue
from graftwork.service.jobs.desk import Desk
from graftwork.service.models import Models
from graftwork.serving import Serving
from tiny_listening import listening
from tiny_models import caller_of
from tiny_service import key_of, make_service

CLASSES = ("0", "1", "7")


def glyph(character: str, rng: np.random.Generator) -> bytes:
    """A character on 28 x 28 pixels, a little shifted and noisy, as PNG."""
    drawn = Image.new("L", (28, 28), 0)
    ImageDraw.Draw(drawn).text(
        (8 + rng.integers(-2, 3), 4 + rng.integers(-2, 3)), character, 255, font_size=18
    )
    noisy = np.clip(np.asarray(drawn) + rng.integers(0, 30, (28, 28)), 0, 255).astype(np.uint8)
    out = io.BytesIO()
    Image.fromarray(noisy).save(out, "PNG")
    return out.getvalue()


@pytest.fixture
def zipped(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    path = tmp_path / "glyphs.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for name in CLASSES:
            for i in range(16):
                archive.writestr(f"glyphs/{name}/{i}.png", glyph(name, rng))
    return path


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    made = make_service(tmp_path / "root")
    made.settings = replace(made.settings, offline=True)
    made.serving = Serving(
        head_memory=10_000_000,
        backbone_memory=1_000_000_000,
        readers=1,
        reading_bytes=1_500_000_000,
        reading_seconds=20,
        offline=True,
    )
    made.artefacts = Artefacts(made.settings.artefacts)
    made.models = Models(made.settings, made.database, made.serving)
    yield made
    made.models.close()
    made.serving.close()


def worker(service: Service, jobs: int, monkeypatch: pytest.MonkeyPatch) -> threading.Thread:
    """Does so many jobs as a worker's child does them, in this process."""
    with service.database.read() as session:
        owner = session.scalars(select(Owner).where(Owner.name == "ann")).one()
    monkeypatch.setenv("GRAFT_PRIVATE", str(service.settings.private(owner.id)))
    monkeypatch.setenv("GRAFT_PRIVATE_KEY", owner.secret)

    def run() -> None:
        for _ in range(jobs):
            while (job := queue.claim(service.database, "worker", 600)) is None:
                threading.Event().wait(0.05)
            work.run(job, Desk(service.settings, service.database, job))

    thread = threading.Thread(target=run, daemon=True)  # a test that fails asks for no more jobs
    thread.start()
    return thread


def test_from_a_zip_to_a_prediction(
    service: Service, zipped: Path, tmp_path: Path, brisk: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    key = key_of(service, "ann")
    working = worker(service, 3, monkeypatch)
    with listening(service) as url, Client(url, key) as client:
        data = client.dataset(zipped)
        assert (data.kind, data.rows, data.state) == ("image", 48, "ready")

        heard: list[Event] = []
        job = client.fit(data, source="glyphs", baselines="none", name="glyphs").wait(heard.append)
        assert job.model is not None and job.result is not None and job.result["source"] == "glyphs"
        assert {"state", "progress"} <= {one.kind for one in heard}
        assert list(service.settings.private(caller_of(service).owner_id).iterdir()), (
            "features are the owner's"
        )

        fresh = [glyph(name, np.random.default_rng(9 + i)) for i, name in enumerate(CLASSES)]
        answers = client.predict("glyphs", [*fresh, b"no picture"])
        assert [one.label for one in answers[:3]] == list(CLASSES)
        assert answers[3].label is None and answers[3].error

        folder = client.download("glyphs", tmp_path)
        pictures = [Image.open(io.BytesIO(one)) for one in fresh]
        local = graftwork.Model.load(folder).predict_proba(pictures)
        served = [list(one.probabilities.values()) for one in answers[:3]]
        assert np.allclose(local, served, atol=0.02)

        (tmp_path / "wrong.png").write_bytes(fresh[0])
        data.correct("7", file=tmp_path / "wrong.png")
        again = client.bring(folder, "brought").wait()
        assert client.predict("brought", fresh)[0].label == CLASSES[0] and again.model is not None
        working.join()

        for model in client.models():
            model.delete()
        data.delete()
        assert not service.settings.private(caller_of(service).owner_id).exists()
        assert Artefacts(service.settings.artefacts).digests() == set()


def test_the_python_of_the_documentation_runs(
    service: Service, tmp_path: Path, brisk: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (Path(__file__).parents[2] / "docs" / "service.md").read_text("utf-8")
    (block,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    head, *rows = (files("graftwork") / "packaged" / "messages.csv").read_text("utf-8").splitlines(True)
    (tmp_path / "tickets.csv").write_text(head + "".join(rows[::2]), encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    key = key_of(service, "ann")
    working = worker(service, 2, monkeypatch)
    with listening(service) as url:
        code = block.replace("http://127.0.0.1:8000", url)
        exec(compile(code, "service.md", "exec"), {"key": key})
    working.join()
    assert (tmp_path / "here" / "tickets.graft" / "manifest.json").is_file()
