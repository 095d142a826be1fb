"""What was saved is what is loaded; anything else is refused with a reason."""

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from safetensors.numpy import save as save_arrays

import tiny
import toys
from graftwork import artefact
from graftwork.backbones import open_backbone
from graftwork.backbones.base import Tunable
from graftwork.backbones.learnt import LORA_A, LORA_B, digest_of_learnt
from graftwork.errors import ArtefactError, RequestError, WorkError
from graftwork.model import Model
from graftwork.rows import Rows, Texts
from graftwork.sources import find

TEXTS = ["where is my parcel", "charged twice", "例子", "", "a" * 5000]


def a_model(scale: float = 1.0) -> Model:
    weights = np.random.default_rng(0).normal(size=(toys.WIDTH, 3)) / 50
    head = toys.ToyHead(("billing", "delivery", "其他"), weights)
    return Model(toys.ToyBackbone(scale), head, None, {"head": "toy"})


def rows(texts: list[str]) -> Rows:
    return Rows([f"row {i}" for i in range(len(texts))], {"text": Texts(texts)})


def save(folder: Path, model: Model | None = None, **options: bool) -> Path:
    return artefact.save(
        model or a_model(),
        folder,
        strategy="probe",
        result={"scores": {}},
        versions={"graftwork": "0"},
        created="2026-01-01T00:00:00+00:00",
        report="<p>report</p>",
        probe=rows(TEXTS),
        **options,
    )


@pytest.fixture(autouse=True)
def toy_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    toys.register(monkeypatch)


def test_a_loaded_model_answers_bit_for_bit_as_the_saved_one(tmp_path: Path) -> None:
    saved = a_model()
    loaded, manifest = artefact.load(save(tmp_path / "m.graft", saved))
    assert manifest.labels == ["billing", "delivery", "其他"]
    assert np.array_equal(loaded.predict_proba(TEXTS), saved.predict_proba(TEXTS))
    assert loaded.predict(TEXTS) == saved.predict(TEXTS)


def test_every_single_damaged_byte_is_found(tmp_path: Path) -> None:
    folder = save(tmp_path / "m.graft")
    for path in sorted(folder.rglob("*")):
        if not path.is_file() or not path.stat().st_size:
            continue
        content = path.read_bytes()
        middle = len(content) // 2
        path.write_bytes(content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :])
        if path.name != "manifest.json":
            with pytest.raises(ArtefactError, match=r"damaged.*restore"):
                artefact.load(folder)
        path.write_bytes(content)
    artefact.load(folder)


@pytest.mark.parametrize("name", ["head.safetensors", "report.html", "probe/row-0", "manifest.json"])
def test_a_missing_file_is_named(tmp_path: Path, name: str) -> None:
    folder = save(tmp_path / "m.graft")
    (folder / name).unlink()
    with pytest.raises(ArtefactError, match=name.replace(".", r"\.")):
        artefact.load(folder)


def edit(folder: Path, **changes: object) -> None:
    path = folder / "manifest.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_a_newer_schema_version_is_refused_with_what_to_do(tmp_path: Path) -> None:
    folder = save(tmp_path / "m.graft")
    edit(folder, schema_version=artefact.SCHEMA + 1, some_later_field={})
    with pytest.raises(ArtefactError, match=r"newer Graftwork.*upgrade"):
        artefact.load(folder)


BROKEN = ["", "[]", "{", '{"schema_version": 1}', '{"schema_version": "1"}', "null"]


@pytest.mark.parametrize("content", BROKEN)
def test_a_broken_manifest_is_refused(tmp_path: Path, content: str) -> None:
    folder = save(tmp_path / "m.graft")
    (folder / "manifest.json").write_text(content)
    with pytest.raises(ArtefactError, match=r"damaged|no schema version"):
        artefact.load(folder)


def test_a_file_outside_the_artefact_is_never_opened(tmp_path: Path) -> None:
    folder = save(tmp_path / "m.graft")
    edit(folder, files={"../secret": "0" * 64})
    with pytest.raises(ArtefactError, match="outside itself"):
        artefact.inspect(folder)


def test_an_unregistered_part_is_refused_before_anything_is_built(tmp_path: Path) -> None:
    folder = save(tmp_path / "m.graft")
    edit(folder, head={"name": "os.system", "config": {}})
    with pytest.raises(ArtefactError, match=r"needs head 'os\.system', which is not installed"):
        artefact.load(folder)


def test_a_backbone_that_answers_differently_is_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "m.graft")
    edit(folder, backbone={"name": "toy", "config": {"scale": 1.0001}})
    with pytest.raises(ArtefactError, match="differently than when it was saved"):
        artefact.load(folder)


def test_another_machine_may_differ_a_little_but_not_much(tmp_path: Path) -> None:
    folder = save(tmp_path / "m.graft")
    edit(folder, machine="another", backbone={"name": "toy", "config": {"scale": 1.0001}})
    artefact.load(folder)
    edit(folder, backbone={"name": "toy", "config": {"scale": 3.0}})
    with pytest.raises(ArtefactError, match="on this machine"):
        artefact.load(folder)


def test_saving_again_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    save(tmp_path / "m.graft")
    save(tmp_path / "m.graft", a_model(2.0))
    assert artefact.load(tmp_path / "m.graft")[0].backbone.fingerprint == "toy-2.0"
    assert [path.name for path in tmp_path.iterdir()] == ["m.graft"]


def test_an_interrupt_while_replacing_leaves_the_older_artefact(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(tmp_path / "m.graft")
    rename = Path.rename

    def interrupted(path: Path, target: Path) -> Path:
        if target.name == "m.graft" and ".old-" not in path.name:
            raise KeyboardInterrupt
        return rename(path, target)

    monkeypatch.setattr("graftwork.paths.exchanged", lambda *_: False)  # where there is no such call
    monkeypatch.setattr(Path, "rename", interrupted)
    with pytest.raises(KeyboardInterrupt):
        save(tmp_path / "m.graft", a_model(2.0))
    assert [path.name for path in tmp_path.iterdir()] == ["m.graft"]
    assert artefact.load(tmp_path / "m.graft")[0].backbone.fingerprint == "toy-1.0"


def test_a_folder_that_is_no_artefact_is_not_overwritten(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.jpg").write_bytes(b"x")
    with pytest.raises(RequestError, match="is no artefact"):
        save(tmp_path / "photos")
    assert (tmp_path / "photos" / "a.jpg").exists()


def test_a_place_that_cannot_be_written_is_said_before_the_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    artefact.require_free(tmp_path / "new" / "folder" / "m.graft")
    assert list(tmp_path.iterdir()) == []

    def refused(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr(artefact.tempfile, "mkdtemp", refused)
    with pytest.raises(WorkError, match=r"cannot be written \(Read-only file system\)"):
        artefact.require_free(tmp_path / "new" / "m.graft")


def test_a_failed_save_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(artefact, "_publish", full)
    with pytest.raises(WorkError, match=r"No space left.*nothing was left"):
        save(tmp_path / "m.graft")
    assert list(tmp_path.iterdir()) == []


def test_without_examples_no_row_of_the_users_is_inside(tmp_path: Path) -> None:
    folder = artefact.save(
        a_model(),
        tmp_path / "m.graft",
        strategy="probe",
        result={},
        versions={},
        created="",
        report="",
        probe=artefact.synthetic_rows("text"),
        examples=False,
    )
    everything = b"".join(path.read_bytes() for path in folder.rglob("*") if path.is_file())
    assert b"parcel" not in everything
    artefact.load(folder)


def test_the_manifest_digest_covers_every_file(tmp_path: Path) -> None:
    folder = save(tmp_path / "m.graft")
    named = set(json.loads((folder / "manifest.json").read_text())["files"])
    there = {str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file()}
    assert there == named | {"manifest.json"}
    assert len(artefact.digest(folder)) == 64


# --- what was tuned


def tuned_model(
    folder: Path, learnt: dict[str, np.ndarray[Any, np.dtype[np.float32]]] | None = None
) -> Model:
    """A tiny encoder whose last projection was tuned by low-rank matrices, with a toy head."""
    encoder = open_backbone(find(str(tiny.bert(folder))), None, runtime="torch")
    assert isinstance(encoder, Tunable)
    rng = np.random.default_rng(0)
    pair = {f"{VALUE}{end}": rng.normal(size=s).astype(np.float32) for end, s in ENDS.items()}
    return Model(encoder.tuned(pair if learnt is None else learnt, None), a_model().head)


VALUE = "encoder.encoder.layer.1.attention.self.value.weight"
ENDS = {LORA_A: (2, 16), LORA_B: (16, 2)}


def change_tensors(folder: Path, change: Callable[[dict[str, Any]], Any], told: bool = True) -> None:
    """Other tensors in the artefact, every digest made to fit; `told`: the configuration's as well, which
    then lists no pairs, as older ones do.
    """
    path = folder / "backbone.safetensors"
    arrays = load_file(path)
    change(arrays)
    path.write_bytes(save_arrays(arrays))
    manifest = json.loads((folder / "manifest.json").read_text())
    files = {**manifest["files"], "backbone.safetensors": hashlib.sha256(path.read_bytes()).hexdigest()}
    config = manifest["backbone"]["config"]
    if told:
        del config["pairs"]
        config["learnt"] = digest_of_learnt(arrays)
    edit(folder, files=files, backbone={**manifest["backbone"], "config": config})


def test_a_tuned_model_is_stored_by_what_changed_and_answers_bit_for_bit(tmp_path: Path) -> None:
    model = tuned_model(tmp_path / "s")
    folder = save(tmp_path / "m.graft", model)
    assert set(load_file(folder / "backbone.safetensors")) == {VALUE + LORA_A, VALUE + LORA_B}
    sizes = artefact.sizes(folder)
    assert sizes["backbone"] < 1_000 and "source" not in sizes
    loaded, _ = artefact.load(folder)
    assert np.array_equal(loaded.predict_proba(TEXTS), model.predict_proba(TEXTS))
    assert loaded.backbone.fingerprint == model.backbone.fingerprint


def test_a_bundled_tuned_model_needs_no_other_file(tmp_path: Path) -> None:
    model = tuned_model(tmp_path / "s")
    bundled, bare = save(tmp_path / "m.graft", model, bundle=True), save(tmp_path / "n.graft", model)
    wanted = model.predict_proba(TEXTS)
    shutil.rmtree(tmp_path / "s")
    assert np.array_equal(artefact.load(bundled)[0].predict_proba(TEXTS), wanted)
    with pytest.raises(RequestError, match="no source with weights of SHA-256"):
        artefact.load(bare, offline=True)


def test_an_older_version_refuses_what_it_would_answer_without_the_changes(tmp_path: Path) -> None:
    tuned = artefact.inspect(save(tmp_path / "tuned.graft", tuned_model(tmp_path / "s")))
    plain = artefact.inspect(save(tmp_path / "plain.graft", tuned_model(tmp_path / "s", {})))
    assert (tuned.schema_version, plain.schema_version) == (4, 2)
    bias = "encoder.encoder.layer.0.output.dense.bias"
    whole = tuned_model(tmp_path / "s", {bias: np.ones(16, np.float32)})
    assert artefact.inspect(save(tmp_path / "whole.graft", whole)).schema_version == 3


HOSTILE: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "no number": (lambda a: a[VALUE + LORA_A].fill(np.nan), "finite float32"),
    "wrong shape": (lambda a: a.update({VALUE + LORA_B: np.zeros((17, 2), np.float32)}), r"\(17, 16\)"),
    "no B": (lambda a: a.pop(VALUE + LORA_B), "and none"),
    "another's name": (
        lambda a: a.update({"roberta.layer.0.bias": np.zeros(3, np.float32)}), "has nothing",
    ),
    "nothing at all": (lambda a: a.clear(), "no tensors"),
    "another type": (lambda a: a.update({"bias": np.zeros(16, np.int8)}), "int8"),
}  # fmt: skip


@pytest.mark.parametrize("case", HOSTILE)
def test_tampered_tensors_are_refused_in_one_line(tmp_path: Path, case: str) -> None:
    folder = save(tmp_path / "m.graft", tuned_model(tmp_path / "s"))
    change, said = HOSTILE[case]
    change_tensors(folder, change)
    with pytest.raises(ArtefactError, match=said) as refused:
        artefact.load(folder)
    assert "\n" not in str(refused.value)


def test_tensors_that_the_configuration_does_not_name_are_refused(tmp_path: Path) -> None:
    folder = save(tmp_path / "m.graft", tuned_model(tmp_path / "s"))
    change_tensors(folder, lambda arrays: arrays[VALUE + LORA_A].fill(0.5), told=False)
    with pytest.raises(ArtefactError, match="are others than its configuration names"):
        artefact.load(folder)


@pytest.mark.parametrize(
    "content", [b"", b"\xff" * 200, (10**15).to_bytes(8, "little") + b"{}", b"\x02\0\0\0\0\0\0\0[]"]
)
@pytest.mark.parametrize("name", ["backbone.safetensors", "head.safetensors", "probe/answers.safetensors"])
def test_a_file_that_holds_no_arrays_is_refused(tmp_path: Path, name: str, content: bytes) -> None:
    folder = save(tmp_path / "m.graft", tuned_model(tmp_path / "s"))
    (folder / name).write_bytes(content)
    files = json.loads((folder / "manifest.json").read_text())["files"]
    edit(folder, files={**files, name: hashlib.sha256(content).hexdigest()})
    with pytest.raises(ArtefactError, match="holds no arrays that can be read"):
        artefact.load(folder)


def test_a_file_that_the_manifest_does_not_list_is_never_read(tmp_path: Path) -> None:
    folder = save(tmp_path / "m.graft")
    (folder / "backbone.safetensors").write_bytes(b"not verified by anything")
    artefact.load(folder)
    files = json.loads((folder / "manifest.json").read_text())["files"]
    edit(folder, files={name: said for name, said in files.items() if not name.startswith("probe/row-")})
    with pytest.raises(ArtefactError, match="has no probe rows"):
        artefact.load(folder)


def test_sizes_add_up_to_every_byte(tmp_path: Path) -> None:
    folder = save(tmp_path / "m.graft", tuned_model(tmp_path / "s"), bundle=True)
    sizes = dict(artefact.sizes(folder))
    total = sizes.pop("total")
    assert total == sum(sizes.values()) == sum(p.stat().st_size for p in folder.rglob("*") if p.is_file())
    assert set(sizes) == {"source", "head", "backbone", "examples", "report", "manifest"}
