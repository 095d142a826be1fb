"""The doctor says what is there, asks nobody when offline, and never fails."""

import json
from pathlib import Path

import pytest

from graftwork import doctor


def test_everything_is_said_in_plain_json(home: Path) -> None:
    said = json.loads(json.dumps(doctor.examine(offline=True)))
    assert said["hub"] == "offline"
    assert said["store"]["folder"] == str(home / "store")
    assert said["store"]["writable"] and said["store"]["free_bytes"] > 0
    assert said["memory_bytes"] > 0 and said["processor"]["cores"] >= 1
    assert said["engine"]["runtime"] in ("openvino", "cuda")
    assert said["versions"]["graftwork"] and said["versions"]["torch"]
    assert said["sources"]["glyphs"] == "present"


def test_offline_no_connection_is_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    import socket

    monkeypatch.setattr(socket.socket, "connect", lambda *_: pytest.fail("a connection was opened"))
    assert doctor.examine()["hub"] == "offline"  # HF_HUB_OFFLINE is set


def test_a_hub_that_does_not_answer_is_unreachable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    assert doctor._hub(False) == "unreachable"


def test_flags_are_those_that_matter(tmp_path: Path) -> None:
    listed = tmp_path / "cpuinfo"
    listed.write_text("model\t: x\nflags\t\t: fpu avx2 avx512_bf16 sse\n")
    assert doctor._flags(listed) == ["avx2", "avx512_bf16"]
    assert doctor._flags(tmp_path / "none") == []


def test_a_folder_that_cannot_be_written_is_told(tmp_path: Path) -> None:
    assert doctor._writable(tmp_path)
    assert not doctor._writable(tmp_path / "none")


def test_a_missing_source_is_said_with_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    from graftwork.sources import packaged as sources

    def absent(name: str) -> object:
        raise sources.PackageNotFoundError(name)

    monkeypatch.setattr(sources, "distribution", absent)
    assert "pip install" in doctor.examine(offline=True)["sources"]["minilm"]
