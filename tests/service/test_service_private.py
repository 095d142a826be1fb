"""What follows from an owner's rows lies in the owner's folder, under keys that only a secret gives."""

import hashlib
from pathlib import Path

import numpy as np
import pytest

import graftwork as gw
import toys
from graftwork import paths, segments, store
from graftwork.rows import Rows, Texts

pytestmark = pytest.mark.usefixtures("brisk")

CONTENTS = [f"text number {i}" for i in range(8)]
ROWS = Rows(CONTENTS, {"text": Texts(CONTENTS)})


def owner(monkeypatch: pytest.MonkeyPatch, folder: Path, secret: bytes) -> Path:
    monkeypatch.setenv("GRAFT_PRIVATE", str(folder))
    monkeypatch.setenv("GRAFT_PRIVATE_KEY", secret.hex())
    return folder


def keys_in(folder: Path) -> set[bytes]:
    parts = [path for shelf in folder.rglob("*") if shelf.is_dir() for path in segments.files(shelf)]
    return {key.tobytes() for path in parts for key in segments.read(path).keys}


def test_features_lie_in_the_owners_folder_and_no_key_is_a_digest_of_a_row(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = owner(monkeypatch, tmp_path / "ann", b"secret of ann" * 2)
    assert store.folder().is_relative_to(mine)
    store.remember(toys.ToyBackbone()).features(ROWS)
    found = keys_in(mine)
    assert len(found) == len(CONTENTS)
    assert not found & {hashlib.sha256(content.encode()).digest() for content in CONTENTS}
    assert not list(paths.home().rglob("store/*"))


def test_another_owner_learns_nothing_from_what_one_has_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = toys.ToyBackbone(), toys.ToyBackbone()
    owner(monkeypatch, tmp_path / "ann", b"secret of ann" * 2)
    ours = store.remember(first).features(ROWS)
    again = store.remember(first).features(ROWS)
    owner(monkeypatch, tmp_path / "bob", b"secret of bob" * 2)
    theirs = store.remember(second).features(ROWS)
    assert (ours.extraction.computed, again.extraction.computed, theirs.extraction.computed) == (8, 0, 8)
    np.testing.assert_array_equal(ours.matrix, theirs.matrix)
    assert not keys_in(tmp_path / "ann") & keys_in(tmp_path / "bob")


def test_even_in_one_folder_two_secrets_share_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for secret in (b"one" * 9, b"two" * 9):
        owner(monkeypatch, tmp_path, secret)
        assert store.remember(toys.ToyBackbone()).features(ROWS).extraction.computed == 8


def test_a_whole_fit_leaves_nothing_of_its_rows_outside_the_owners_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mine = owner(monkeypatch, tmp_path / "ann", b"secret of ann" * 2)
    texts = [f"{('good day', 'bad rain')[i % 2]} {i}" for i in range(24)]
    gw.fit(texts, labels=[i % 2 for i in range(24)], source="minilm", baselines="classical")
    assert (mine / "store").is_dir() and (mine / "baselines").is_dir()
    assert not (paths.home() / "store").exists() and not (paths.home() / "baselines").exists()


def test_without_an_owner_everything_lies_where_it_did(home: Path) -> None:
    assert (paths.private(), paths.private_key()) == (home, None)
    store.remember(toys.ToyBackbone()).features(ROWS)
    assert keys_in(home) == {hashlib.sha256(content.encode()).digest() for content in CONTENTS}
