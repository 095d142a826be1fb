"""The model hub: what is fetched, what a first use pins, and every way in which it may go wrong."""

import json
import shutil
from pathlib import Path

import pytest

from fake_hub import FakeHub, http_error, source
from graftwork import paths, sources
from graftwork.errors import ArtefactError, RequestError, WorkError
from graftwork.sources import finding, hub, ledger, listing, pins

A, B = "a" * 40, "b" * 40


@pytest.fixture
def fake(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """A hub with one model, owner/net, at commit A."""
    found = FakeHub.installed(tmp_path / "cache", monkeypatch)
    found.push("owner/net", source(tmp_path / "at-a", seed=1), A)
    return found


def test_a_first_use_pins_and_later_uses_ask_nobody(fake: FakeHub, tmp_path: Path) -> None:
    first = sources.find("owner/net")
    assert (first.name, first.origin, first.revision, first.licence) == ("owner/net", "hub", A, "mit")
    known = pins.pinned("pins", "owner/net")
    assert known is not None and (known.place, dict(known.files)) == (A, dict(first.files))
    fake.push("owner/net", source(tmp_path / "at-b", seed=2), B)
    calls = fake.calls
    again = sources.find("owner/net")
    assert again == first and fake.calls == calls  # its licence too


def test_after_a_first_use_no_connection_is_needed(fake: FakeHub) -> None:
    first = sources.find("owner/net")
    fake.failure = ConnectionError("refused")
    assert sources.find("owner/net", offline=True) == first == sources.find("owner/net")


def test_a_pinned_model_that_left_the_cache_is_fetched_at_its_commit(fake: FakeHub, tmp_path: Path) -> None:
    first = sources.find("owner/net")
    fake.push("owner/net", source(tmp_path / "at-b", seed=2), B)
    shutil.rmtree(fake.cache)
    assert sources.find("owner/net").files == first.files
    (first.folder / "preprocessor_config.json").unlink()
    with pytest.raises(RequestError, match=r"offline, and preprocessor_config\.json of owner/net"):
        sources.find("owner/net", offline=True)
    assert sources.find("owner/net").files == first.files


def test_what_the_hub_has_now_is_taken_only_when_it_is_added(fake: FakeHub, tmp_path: Path) -> None:
    sources.find("owner/net")
    newer = source(tmp_path / "at-b", seed=2)
    fake.push("owner/net", newer, B)
    moved = finding.from_hub("owner/net", offline=False, afresh=True)
    assert moved.revision == B and moved.weights_sha256 == paths.file_digest(newer / "model.safetensors")
    assert sources.find("owner/net") == moved


def test_weights_that_changed_under_the_same_commit_are_refused(fake: FakeHub, tmp_path: Path) -> None:
    first = sources.find("owner/net")
    shutil.copy(source(tmp_path / "other", seed=9) / "model.safetensors", first.folder)
    with pytest.raises(
        ArtefactError, match=r"'owner/net' has changed at revision aaaaaaaaaaaa since 20"
    ) as said:
        sources.find("owner/net")
    assert "model.safetensors" in str(said.value) and "graft sources add owner/net" in str(said.value)
    assert str(first.folder) in str(said.value)
    assert "owner/net" not in {one.name for one in sources.available()}
    accepted = finding.from_hub("owner/net", offline=False, afresh=True)
    assert sources.find("owner/net") == accepted != first


def test_a_hub_that_serves_other_files_for_a_pinned_commit_is_refused(fake: FakeHub, tmp_path: Path) -> None:
    sources.find("owner/net")
    shutil.rmtree(fake.cache)
    fake.push("owner/net", source(tmp_path / "other", seed=9), A)
    with pytest.raises(ArtefactError, match="has changed at revision"):
        sources.find("owner/net")


def test_an_explicit_revision_has_a_pin_of_its_own(fake: FakeHub, tmp_path: Path) -> None:
    fake.push("owner/net", source(tmp_path / "at-b", seed=2), B)
    older, newest = sources.find(f"owner/net@{A}"), sources.find("owner/net")
    assert (older.revision, newest.revision) == (A, B) and older.name == newest.name == "owner/net"
    assert ledger.names("pins") == ["owner/net", f"owner/net@{A}"]


def test_a_pinned_commit_that_is_gone_says_how_to_move_on(fake: FakeHub, tmp_path: Path) -> None:
    sources.find("owner/net")
    shutil.rmtree(fake.cache)
    fake.commits["owner/net"] = {B: source(tmp_path / "at-b", seed=2)}
    with pytest.raises(
        RequestError, match=r"no longer revision a+ of 'owner/net'.*graft sources add owner/net"
    ):
        sources.find("owner/net")


def test_a_model_that_cannot_be_read_is_not_pinned(fake: FakeHub) -> None:
    (fake.commits["owner/net"][A] / "config.json").write_text("{}")
    with pytest.raises(ArtefactError, match="names no model_type"):
        sources.find("owner/net")
    assert ledger.names("pins") == []


ANOTHER = {"name": "owner/other", "place": A, "files": {}, "licence": None, "since": "2026-01-01"}


@pytest.mark.parametrize("spoil", ["{", "[]", '{"name": "owner/net"}', json.dumps(ANOTHER)])
def test_a_damaged_pin_is_never_made_anew_in_silence(fake: FakeHub, spoil: str) -> None:
    sources.find("owner/net")
    place = ledger.place("pins", "owner/net")
    place.write_text(spoil)
    with pytest.raises(ArtefactError, match=r"owner%2Fnet\.json is damaged.*graft sources add owner/net"):
        sources.find("owner/net")
    assert place.read_text() == spoil


def test_a_home_that_cannot_be_written_is_said_and_does_not_stop_the_work(
    fake: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("GRAFT_HOME", str(tmp_path / "file"))
    with pytest.warns(pins.PinWarning, match="owner/net could not be pinned"):
        assert sources.find("owner/net").revision == A


def test_a_name_of_the_catalogue_stands_for_its_hub_id(fake: FakeHub, tmp_path: Path) -> None:
    fake.push("microsoft/resnet-18", source(tmp_path / "resnet"), A, licence=None)
    found = sources.find("resnet-18")
    assert (found.name, found.revision, found.licence) == ("resnet-18", A, "apache-2.0")  # the table's
    assert sources.find("microsoft/resnet-18") == found
    assert ledger.names("pins") == ["microsoft/resnet-18"]
    assert sources.find_by_digest(found.weights_sha256, name="resnet-18", offline=True) == found


def test_the_catalogue_s_commit_is_taken_where_it_states_one(fake: FakeHub, tmp_path: Path) -> None:
    commit = "39a0713fab4fbb4a1b7785bd473c5f9708fdf8b3"
    name = "microsoft/dit-base-finetuned-rvlcdip"
    fake.push(name, source(tmp_path / "with-safetensors"), commit, licence=None)
    fake.push(name, source(tmp_path / "main", seed=5), B, licence=None)
    assert sources.find("dit-documents").revision == commit
    assert sources.find(f"{name}@{B}").name == name  # another commit is not what the table describes


def test_a_licence_called_other_is_given_by_its_name(fake: FakeHub) -> None:
    fake.cards["owner/net"] = {"license": "other", "license_name": "owkin-non-commercial"}
    assert sources.find("owner/net").licence == "owkin-non-commercial"


def test_models_in_the_hub_s_cache_are_available_and_looking_pins_nothing(
    fake: FakeHub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fake.push("microsoft/resnet-18", source(tmp_path / "resnet", seed=3), A)
    fake.snapshot("microsoft/resnet-18", A, [
        "config.json", "model.safetensors", "preprocessor_config.json",
    ])  # fmt: skip
    sources.find("owner/net")
    assert {"resnet-18", "owner/net"} <= {one.name for one in sources.available("image")}
    listed = {one.name: one for one in listing.listing(local=True)}
    assert listed["resnet-18"].where == "hub cache" and listed["resnet-18"].source is None
    assert ledger.names("pins") == ["owner/net"]
    monkeypatch.setenv("GRAFT_SOURCES", str(tmp_path))
    named = [one.name for one in sources.available("image")]
    assert "at-a" in named and "owner/net" not in named  # the same weights, listed once


def test_a_model_that_does_not_exist_is_said_with_the_nearest_known(fake: FakeHub) -> None:
    with pytest.raises(
        RequestError, match=r"no model 'microsoft/resnet-19'.*did you mean 'microsoft/resnet-18'"
    ):
        sources.find("microsoft/resnet-19")
    with pytest.raises(RequestError, match=r"no model 'owner/net' at v9 that you may read"):
        sources.find("owner/net@v9")


@pytest.mark.parametrize("where", ["failure", "download_failure"])
def test_no_permission_says_how_to_get_it(fake: FakeHub, where: str) -> None:
    from huggingface_hub.errors import GatedRepoError, HfHubHTTPError

    setattr(fake, where, http_error(GatedRepoError, 403))
    with pytest.raises(
        RequestError, match=r"those whom its owner lets.*huggingface\.co/owner/net.*hf auth login"
    ):
        sources.find("owner/net")
    for status in (401, 403):
        setattr(fake, where, http_error(HfHubHTTPError, status))
        with pytest.raises(RequestError, match=rf"HTTP {status}.*hf auth login"):
            sources.find("owner/net")
    setattr(fake, where, http_error(HfHubHTTPError, 503, "busy"))
    with pytest.raises(WorkError, match=r"could not be reached.*busy"):
        sources.find("owner/net")
    assert ledger.names("pins") == []


def test_a_refused_connection_and_a_full_disk_are_the_work_s_failure(fake: FakeHub) -> None:
    import errno

    fake.failure = ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")
    with pytest.raises(WorkError, match=r"could not be reached for 'owner/net' \(.*Connection refused\)"):
        sources.find("owner/net")
    fake.failure, fake.download_failure = None, OSError(errno.ENOSPC, "No space left on device", "/cache/x")
    with pytest.raises(WorkError, match=r"/cache/x: No space left.*HF_HOME"):
        sources.find("owner/net")


def test_a_fault_of_ours_is_not_taken_for_the_hub_s(fake: FakeHub) -> None:
    fake.failure = ZeroDivisionError("ours")
    with pytest.raises(ZeroDivisionError):
        sources.find("owner/net")


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
