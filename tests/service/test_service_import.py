"""Artefacts brought from elsewhere: they answer as they did, or are refused in one line."""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hostile
import numpy as np
import pytest
from sqlalchemy import select

import graftwork as gw
from graftwork import artefact
from graftwork.service.database.tables import Job, Model
from graftwork.service.jobs.desk import Desk
from tiny_shop import Shop

pytestmark = pytest.mark.usefixtures("brisk")


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An artefact on a packaged source, as `graft fit` writes it."""
    import os

    home = os.environ.get("GRAFT_HOME")
    os.environ["GRAFT_HOME"] = str(tmp_path_factory.mktemp("home"))
    try:
        texts = [f"{('a fine good day', 'bad rain and mud')[i % 2]} {i}" for i in range(24)]
        outcome = gw.fit(texts, labels=["good", "bad"] * 12, source="minilm", baselines="none", offline=True)
        return outcome.save(tmp_path_factory.mktemp("made") / "m.graft", bundle=True)
    finally:
        if home is None:
            del os.environ["GRAFT_HOME"]
        else:
            os.environ["GRAFT_HOME"] = home


Change = Callable[[dict[str, bytes]], None]


def packed(made: Path, change: Change | None = None, top: str = "m.graft/", bundled: bool = False) -> bytes:
    """The artefact as a zip. change: what a stranger does to its files; digests are set right afterwards."""
    files = {
        path.relative_to(made).as_posix(): path.read_bytes()
        for path in sorted(made.rglob("*"))
        if path.is_file() and (bundled or path.relative_to(made).parts[0] != "source")
    }
    if change is not None:
        change(files)
    if "manifest.json" in files:
        files["manifest.json"] = _with_digests(files)
    return hostile.zip_of({f"{top}{name}": content for name, content in files.items()}, zipfile.ZIP_STORED)


def _with_digests(files: dict[str, bytes]) -> bytes:
    try:
        said = json.loads(files["manifest.json"])
    except (ValueError, RecursionError):
        return files["manifest.json"]
    if isinstance(said, dict) and isinstance(said.get("files"), dict):
        for name in said["files"]:
            if name in files:
                said["files"][name] = hashlib.sha256(files[name]).hexdigest()
    return json.dumps(said).encode()


def manifest(**changes: Any) -> Change:
    """Set fields of the manifest; source__folder is a field of its source."""

    def change(files: dict[str, bytes]) -> None:
        said = json.loads(files["manifest.json"])
        for name, value in changes.items():
            *path, last = name.split("__")
            at = said
            for part in path:
                at = at[part]
            at[last] = value
        files["manifest.json"] = json.dumps(said).encode()

    return change


def content(name: str, value: bytes) -> Change:
    return lambda files: files.update({name: value})


def head(value: float | None = None, shape: tuple[int, ...] | None = None) -> Change:
    """Replace the first array of the head."""

    def change(files: dict[str, bytes]) -> None:
        from safetensors.numpy import load, save

        arrays = dict(load(files["head.safetensors"]))
        name = max(arrays, key=lambda one: arrays[one].size)
        arrays[name] = (
            np.full_like(arrays[name], value) if shape is None else np.zeros(shape, arrays[name].dtype)
        )
        files["head.safetensors"] = save(arrays)

    return change


def brought(shop: Shop, archive: bytes) -> Job:
    return shop.job("import", file=shop.upload("m.graft.zip", archive), name="brought")


@pytest.mark.parametrize("top", ["m.graft/", ""])
@pytest.mark.parametrize("bundled", [True, False])
def test_an_artefact_comes_in_bound_to_the_source_that_is_here(
    shop: Shop, made: Path, top: str, bundled: bool
) -> None:
    ended = brought(shop, packed(made, manifest(source__folder="/etc", source__name="../evil"), top, bundled))
    assert ended.state == "succeeded", ended.problem
    model, folder = shop.model(ended)
    assert (model.name, model.kind, model.source) == ("brought", "text", "minilm")
    assert sorted(model.labels) == ["bad", "good"]
    loaded, said = artefact.load(folder, offline=True)
    assert said.source is not None and (said.source.folder, said.source.bundled) == ("", False)
    assert not (folder / "source").exists()
    assert loaded.predict(["a fine good day"]) == ["good"]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (content("evil.pkl", hostile.pickle_named_jpg()), "which none has"),
        (content("probe/../../x", b"x"), "leads out"),
        (content("head.safetensors", hostile.huge_header_safetensors()), "head.safetensors"),
        (content("head.safetensors", hostile.overlapping_safetensors()), "head.safetensors"),
        (content("head.safetensors", hostile.pickle_named_jpg()), "head.safetensors"),
        (head(value=np.nan), "refused"),
        (head(value=7.0), "refused"),
        (head(shape=(3, 3)), "refused"),
        (content("manifest.json", b"{"), "damaged"),
        (content("manifest.json", b"[" * 100_000), "damaged"),
        (content("manifest.json", b'{"schema_version": 99, "files": {}}'), "newer"),
        (lambda files: files.pop("manifest.json"), "no manifest.json"),
        (lambda files: files.pop("head.safetensors"), "missing"),
        (manifest(source__weights_sha256="0" * 64), "which this server lacks"),
        (manifest(labels=["good", "go\u202eod"]), "plain text"),
        (manifest(labels=["good", "good"]), "twice"),
        (manifest(labels=["a", "b", "c"]), "refused"),
        (manifest(labels=[f"{i} {'x' * 900}" for i in range(300)]), "characters together"),
        (manifest(backbone__config__preprocessing__tokens=10**9), "tokens = 1000000000"),
        (
            manifest(backbone__config__preprocessing={"framing": {"resize": [9, 50_000]}}),
            "resize = [9, 50000]",
        ),
        (manifest(backbone__config__preprocessing={"framing": {"width": "wide"}}), "width = wide"),
        (manifest(backbone__config__size=-1), "size = -1"),
        (manifest(backbone__name="no-such"), "not installed"),
        (manifest(head__name="os.system"), "not installed"),
        (manifest(kind="image"), "refused"),
        (manifest(backbone__config={}), "refused"),
    ],
)
def test_what_is_wrong_with_a_brought_artefact_is_said_in_one_line(
    shop: Shop, made: Path, change: Change, word: str
) -> None:
    ended = brought(shop, packed(made, change))
    assert ended.state == "failed" and ended.problem is not None
    detail = ended.problem["detail"]
    assert ended.problem["code"] == "invalid-request" and word in detail, ended.problem
    assert "\n" not in detail and len(detail) < 500 and str(shop.settings.root) not in detail
    assert not shop.settings.artefacts.exists() or not list(shop.settings.artefacts.iterdir())
    assert not (shop.settings.root.parent / "x").exists()


def test_a_model_without_a_source_comes_back_as_it_left(shop: Shop) -> None:
    table = "text,label\n" + "".join(
        f"{('fine day', 'bad rain')[i % 2]} {i},{'ab'[i % 2]}\n" for i in range(24)
    )
    data = shop.dataset(("t.csv", table.encode()))
    first = shop.job("fit", data.id, strategy="classical", baselines="none")
    model, folder = shop.model(first)
    again, _ = shop.model(brought(shop, packed(folder)))
    assert (again.labels, again.source, again.strategy) == (model.labels, None, "classical")
    assert again.digest != "" and again.summary["scores"] == model.summary["scores"]


def test_an_altered_file_is_refused(shop: Shop, made: Path) -> None:
    whole = zipfile.ZipFile(io.BytesIO(packed(made)))
    files = {name: whole.read(name) for name in whole.namelist()}
    files["m.graft/report.html"] += b"<script>alert(1)</script>"
    ended = brought(shop, hostile.zip_of(files))
    assert ended.problem is not None and "SHA-256 is not the manifest's" in ended.problem["detail"]


SCORE = {"value": 0.5, "low": None, "high": None}


@pytest.mark.parametrize(
    "strange",
    [
        {"scores": "<script>", "verdict": {"outcome": "great"}, "dataset": {"rows": "many"}},
        {"scores": {"test": {f"metric {i}": SCORE for i in range(51)}}},
        {"scores": {"x" * 101: {"accuracy": SCORE}}},
    ],
    ids=["another form", "many", "long"],
)
def test_what_a_stranger_says_of_scores_is_shown_only_in_the_form_of_scores(
    shop: Shop, made: Path, strange: dict[str, Any]
) -> None:
    ended = brought(shop, packed(made, manifest(result=strange)))
    assert ended.state == "succeeded", ended.problem
    summary = shop.model(ended)[0].summary
    assert (summary["scores"], summary["verdict"], summary["rows"]) == ({}, None, None)


def test_a_model_whose_artefact_goes_with_another_at_that_moment_is_not_made(
    shop: Shop, made: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = Desk.finish

    def late(desk: Desk, *said: Any, **more: Any) -> Any:
        for digest in desk.artefacts.digests():
            desk.artefacts.remove(digest)
        return put(desk, *said, **more)

    monkeypatch.setattr(Desk, "finish", late)
    job = brought(shop, packed(made))
    assert job.state == "failed" and job.problem is not None and job.problem["code"] == "conflict"
    with shop.database.read() as session:
        assert session.scalars(select(Model)).all() == []


def test_anothers_upload_cannot_be_imported(shop: Shop, made: Path) -> None:
    from graftwork.service.database.tables import File

    file = shop.upload("m.zip", packed(made))
    with shop.database.write() as session:
        found = session.get(File, file)
        assert found is not None
        found.owner_id = "bob"
    ended = shop.job("import", file=file, name="x")
    assert ended.problem is not None and ended.problem["code"] == "not-found"
