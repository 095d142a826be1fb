"""Tasks are opened once, held under a limit, opened anew when replaced; hostile ones are refused."""

import json
import os
import shutil
import struct
import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

import tiny_tasks
import toys
from graftwork import artefact, opening
from graftwork.errors import ArtefactError, RequestError
from graftwork.serving import aside
from graftwork.serving import tasks as tasks_module
from graftwork.serving.tasks import Tasks, check
from graftwork.unknown import Familiarity as Known
from tiny_tasks import edit, replace_file, save

ROOMY = 10**9


@pytest.fixture(autouse=True)
def toy_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    toys.register(monkeypatch)


@pytest.fixture
def at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """A task is never believed to be unchanged."""
    monkeypatch.setattr(tasks_module, "STALE_S", -1.0)


def asked(tasks: Tasks, fingerprint: str = "toy-1.0") -> int:
    """How often the network was run."""
    backbone = tasks.backbone(fingerprint)
    assert isinstance(backbone, toys.ToyBackbone)
    return len(backbone.asked)


def never(*_: object, **__: object) -> None:
    raise AssertionError("done once too often")


def test_a_task_is_what_its_artefact_says(tmp_path: Path) -> None:
    folder = save(tmp_path / "a.graft", tiny_tasks.head("mlp"), familiar=tiny_tasks.known())
    task = Tasks(ROOMY).get(folder)
    model, manifest = artefact.load(folder)
    assert (task.folder, task.digest) == (folder, artefact.digest(folder))
    assert (task.kind, task.labels, task.fingerprint) == ("text", tiny_tasks.LABELS, manifest.fingerprint)
    features = np.random.default_rng(0).poisson(3, (50, toys.WIDTH)).astype(np.float32)
    assert np.array_equal(task.head.logits(features), model.head.logits(features))
    assert task.familiarity is not None and model.familiarity is not None
    assert np.array_equal(task.familiarity.unknown(features), model.familiarity.unknown(features))


def test_the_network_is_asked_once_for_all_that_share_it(tmp_path: Path) -> None:
    tasks = Tasks(ROOMY)
    for i in range(5):
        tasks.get(save(tmp_path / f"{i}.graft", tiny_tasks.head(seed=i)))
    tasks.get(save(tmp_path / "other.graft", scale=2.0))
    assert (asked(tasks), asked(tasks, "toy-2.0")) == (1, 1)
    assert tasks.counted() == {"toy-1.0": 5, "toy-2.0": 1}


def test_a_further_task_whose_head_answers_otherwise_is_refused(tmp_path: Path) -> None:
    tasks = Tasks(ROOMY)
    tasks.get(save(tmp_path / "a.graft"))
    other = save(tmp_path / "b.graft")
    arrays = load_file(other / "head.safetensors")
    arrays["weights"][3] += 1
    replace_file(other, "head.safetensors", arrays)
    with pytest.raises(ArtefactError, match="differently than when it was saved"):
        tasks.get(other)
    assert asked(tasks) == 1


def test_features_of_another_backbone_are_not_believed_for_this_one(tmp_path: Path) -> None:
    tasks = Tasks(ROOMY)
    tasks.get(save(tmp_path / "a.graft"))
    other = save(tmp_path / "b.graft", scale=3.0)
    edit(other, backbone={"name": "toy", "config": {"scale": 1.0}})
    with pytest.raises(ArtefactError, match="differently than when it was saved"):
        tasks.get(other)


def test_labels_count_among_a_tasks_bytes(tmp_path: Path) -> None:
    tasks = Tasks(ROOMY)
    short = tasks.get(save(tmp_path / "a.graft"))
    long = ("a" * 10_000, "b" * 10_000, "c" * 10_000)
    assert tasks.get(save(tmp_path / "b.graft", tiny_tasks.head(labels=long))).bytes >= short.bytes + 29_000


def test_those_asked_longest_ago_go_and_come_back_without_a_replay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [save(tmp_path / f"{i}.graft", tiny_tasks.head(seed=i)) for i in range(4)]
    one = Tasks(ROOMY).get(folders[0]).bytes
    tasks = Tasks(3 * one)
    for folder in folders[:3]:
        tasks.get(folder)
    assert tasks.held(folders[0]) is not None
    tasks.get(folders[3])
    assert [folder for folder in folders if tasks.held(folder) is None] == [folders[1]]
    figures = {"tasks_held": 3, "task_bytes": 3 * one, "tasks_opened": 4, "adapters_held": 0}
    assert tasks.figures() == figures
    monkeypatch.setattr(opening, "replay_head", never)
    monkeypatch.setattr(opening, "replay", never)
    assert tasks.get(folders[1]).labels == tiny_tasks.LABELS


def test_one_larger_than_the_limit_is_served_all_the_same(tmp_path: Path) -> None:
    tasks = Tasks(1)
    for name in ("a", "b"):
        assert tasks.get(save(tmp_path / f"{name}.graft")).labels
    assert tasks.figures()["tasks_held"] == 1


def test_a_head_damaged_while_it_was_paged_out_is_refused(tmp_path: Path) -> None:
    tasks, folder = Tasks(ROOMY), save(tmp_path / "a.graft")
    tasks.get(folder)
    tasks.forget(folder)
    content = bytearray((folder / "head.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "head.safetensors").write_bytes(content)
    with pytest.raises(ArtefactError, match=r"head\.safetensors is damaged"):
        tasks.get(folder)


@pytest.mark.usefixtures("at_once")
def test_a_replaced_artefact_is_opened_anew_and_a_deleted_one_is_gone(tmp_path: Path) -> None:
    tasks, folder = Tasks(ROOMY), save(tmp_path / "a.graft")
    before = tasks.get(folder)
    assert tasks.get(folder) is before
    save(folder, tiny_tasks.head(seed=1))
    assert tasks.held(folder) is None
    after = tasks.get(folder)
    assert after.digest == artefact.digest(folder) != before.digest
    shutil.rmtree(folder)
    assert tasks.held(folder) is None
    with pytest.raises(ArtefactError, match="is no artefact"):
        tasks.get(folder)


def test_an_artefact_that_was_overwritten_in_place_does_not_change_a_held_task(tmp_path: Path) -> None:
    familiar = tiny_tasks.known(300)
    tasks, folder = Tasks(ROOMY), save(tmp_path / "a.graft", familiar=familiar)
    task = tasks.get(folder)
    for name in ("familiarity.safetensors", "head.safetensors"):
        os.truncate(folder / name, 0)
    features = np.random.default_rng(0).poisson(3, (50, toys.WIDTH)).astype(np.float32)
    assert task.familiarity is not None
    assert np.array_equal(task.familiarity.unknown(features), familiar.unknown(features))


def test_a_bank_takes_little_of_the_memory_that_tasks_may_take(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    wide = rng.normal(size=(300, 1280)).astype(np.float32)
    known = Known.fit(wide, rng.integers(0, 3, 300))
    quick = Tasks(ROOMY)._quick(known)
    assert tasks_module._size(tiny_tasks.head(), quick) < known.arrays()["bank"].nbytes / 8


@pytest.mark.filterwarnings("error")
def test_banks_put_aside_are_read_back_and_their_files_go_with_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(aside, "FILE_BYTES", 3_000)
    banks = [np.random.default_rng(i).normal(size=(10 + i, 16)).astype(np.float16) for i in range(9)]
    files = len([*Path("/proc/self/fd").iterdir()])
    place = aside.Aside()
    kept = [place.put(bank) for bank in banks]
    for bank, found in zip(banks, kept, strict=True):
        some = np.array([9, 0, 3])
        assert isinstance(found, aside.Kept) and np.array_equal(found[:], bank)
        assert np.array_equal(found[some], bank[some]) and np.array_equal(found[4:8], bank[4:8])
    assert len([*Path("/proc/self/fd").iterdir()]) > files + 1
    del place, kept, found
    assert len([*Path("/proc/self/fd").iterdir()]) == files


def test_banks_stay_in_memory_where_the_disk_is_full(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "pwrite", full)
    bank = np.ones((3, 16), np.float16)
    assert aside.Aside().put(bank) is bank


def test_a_backbone_that_was_dropped_is_opened_again(tmp_path: Path) -> None:
    tasks = Tasks(ROOMY)
    task = tasks.get(save(tmp_path / "a.graft"))
    before = tasks.backbone(task.fingerprint)
    assert tasks.backbone(task.fingerprint) is before
    tasks.drop(task.fingerprint)
    assert tasks.backbone(task.fingerprint) is not before


def test_a_dropped_backbone_is_found_in_another_artefact_where_its_first_is_gone(tmp_path: Path) -> None:
    tasks = Tasks(ROOMY)
    folders = [save(tmp_path / f"{i}.graft", tiny_tasks.head(seed=i)) for i in range(2)]
    fingerprint = {tasks.get(folder).fingerprint for folder in folders}.pop()
    tasks.drop(fingerprint)
    shutil.rmtree(folders[0])
    assert tasks.backbone(fingerprint).fingerprint == fingerprint
    tasks.drop(fingerprint)
    save(folders[1], scale=2.0)
    with pytest.raises(ArtefactError, match="are gone"):
        tasks.backbone(fingerprint)


def test_a_dropped_backbone_whose_source_is_gone_is_found_where_another_has_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    tasks, restored = Tasks(ROOMY), opening.backbone_of
    bare, bundled = save(tmp_path / "bare.graft"), save(tmp_path / "bundled.graft")

    def without_source(folder: Path, *rest: Any, **settings: Any) -> Any:
        if folder == bare:
            raise RequestError("no source with these weights")
        return restored(folder, *rest, **settings)

    tasks.get(bare), tasks.drop("toy-1.0")
    monkeypatch.setattr(opening, "backbone_of", without_source)
    with pytest.raises(RequestError, match="no source with these weights"):
        tasks.backbone("toy-1.0")
    tasks.get(bundled), tasks.drop("toy-1.0")
    assert tasks.backbone("toy-1.0").fingerprint == "toy-1.0"


def test_a_source_that_is_gone_is_looked_for_once_however_many_need_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = {
        "name": "s", "kind": "text", "folder": "/gone", "files": {}, "origin": "local", "revision": None,
        "licence": None, "weights_sha256": "", "bundled": False,
    }  # fmt: skip
    tasks, searches = Tasks(ROOMY), []
    for i in range(5):
        tasks.get(save(tmp_path / f"{i}.graft", tiny_tasks.head(seed=i)))
        edit(tmp_path / f"{i}.graft", source=entry)
    tasks.drop("toy-1.0")

    def search(folder: Path, *_: Any, **__: Any) -> None:
        searches.append(folder)
        raise RequestError("no source with these weights")

    monkeypatch.setattr(opening, "backbone_of", search)
    with pytest.raises(RequestError, match="no source with these weights"):
        tasks.backbone("toy-1.0")
    assert len(searches) == 1


def test_an_artefact_replaced_while_it_is_opened_is_not_called_damaged(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder, head_of, times = save(tmp_path / "a.graft"), opening.head_of, []

    def replaced_meanwhile(*given: Any) -> Any:
        if not times:
            times.append(save(folder, tiny_tasks.head(seed=1)))
        return head_of(*given)

    monkeypatch.setattr(opening, "head_of", replaced_meanwhile)
    assert Tasks(ROOMY).get(folder).digest == artefact.digest(folder)
    monkeypatch.setattr(opening, "head_of", head_of)
    (folder / "head.safetensors").write_bytes(b"damaged")
    with pytest.raises(ArtefactError, match="is damaged"):
        Tasks(ROOMY).get(folder)


def test_one_that_opens_slowly_holds_up_no_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    slow, quick = save(tmp_path / "slow.graft", scale=2.0), save(tmp_path / "quick.graft")
    go, begun, opened = threading.Event(), threading.Event(), []
    real = opening.backbone_of

    def backbone_of(folder: Path, *given: Any, **more: Any) -> Any:
        opened.append(folder)
        if folder == slow:
            begun.set()
            assert go.wait(120)
        return real(folder, *given, **more)

    monkeypatch.setattr(opening, "backbone_of", backbone_of)
    tasks = Tasks(ROOMY)
    with ThreadPoolExecutor(4) as pool:
        waiting = [pool.submit(tasks.get, slow) for _ in range(3)]
        assert begun.wait(120)
        assert tasks.get(quick).labels == tiny_tasks.LABELS
        assert tasks.held(slow) is None and not any(one.done() for one in waiting)
        go.set()
        assert len({id(one.result()) for one in waiting}) == 1
    assert sorted(opened) == [quick, slow]


def test_many_threads_open_many_tasks(tmp_path: Path) -> None:
    folders = [save(tmp_path / f"{i}.graft", tiny_tasks.head(seed=i)) for i in range(12)]
    tasks = Tasks(4 * Tasks(ROOMY).get(folders[0]).bytes)
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(tasks.get, folders * 10))
    assert [one.folder for one in found] == folders * 10
    held = [task for task in map(tasks.held, folders) if task]
    assert tasks.figures()["task_bytes"] == sum(task.bytes for task in held) and len(held) == 4


# --- what is hostile


def header(text: bytes, data: bytes = b"") -> bytes:
    return struct.pack("<Q", len(text)) + text + data


def tensors(**said: Any) -> bytes:
    return header(json.dumps(said).encode(), bytes(4096))


def changed(name: str, change: Callable[[dict[str, Any]], Any]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        arrays = load_file(folder / name)
        change(arrays)
        replace_file(folder, name, arrays)

    return apply


def content(name: str, written: bytes) -> Callable[[Path], None]:
    return lambda folder: replace_file(folder, name, written)


def said(**fields: Any) -> Callable[[Path], None]:
    return lambda folder: edit(folder, **fields)


HEAD, BANK, ANSWERS = "head.safetensors", "familiarity.safetensors", "probe/answers.safetensors"
F32 = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}
SOURCE = {
    "name": "s", "kind": "text", "folder": "/etc", "files": {"model.safetensors": "0" * 64},
    "origin": "local", "revision": None, "licence": None, "weights_sha256": "0" * 64, "bundled": False,
}  # fmt: skip
HOSTILE: dict[str, Callable[[Path], None]] = {
    "a header of 100 MB": content(HEAD, struct.pack("<Q", 100_000_000) + b"{"),
    "a header longer than all memory": content(HEAD, struct.pack("<Q", 2**63) + b"{"),
    "a header that is none": content(HEAD, header(b"\x80\x02pickle")),
    "tensors that overlap": content(HEAD, tensors(weights=F32, bias={**F32, "data_offsets": [4, 12]})),
    "tensors past the end": content(
        HEAD, tensors(weights={**F32, "shape": [2**40], "data_offsets": [0, 2**42]})
    ),
    "a deep header": content(HEAD, header(b"[" * 100_000)),
    "an empty file": content(HEAD, b""),
    "weights that are none": changed(HEAD, lambda a: a["weights"].fill(np.nan)),
    "an endless bias": changed(HEAD, lambda a: a["bias"].fill(np.inf)),
    "another backbone's width": changed(HEAD, lambda a: a.update(weights=np.zeros((17, 3), np.float32))),
    "one class for three labels": changed(HEAD, lambda a: a.update(weights=np.zeros((16, 1), np.float32))),
    "a bias a probe row": changed(HEAD, lambda a: a.update(bias=np.zeros((4, 3)))),
    "more arrays": changed(HEAD, lambda a: a.update(more=np.zeros(3))),
    "no arrays": changed(HEAD, lambda a: a.clear()),
    "a bank of another width": changed(BANK, lambda a: a.update(bank=np.ones((200, 17), np.float16))),
    "a bank of one axis": changed(BANK, lambda a: a.update(bank=np.ones(200, np.float16))),
    "more neighbours than rows": changed(BANK, lambda a: a["neighbours"].fill(10**6)),
    "no neighbours": changed(BANK, lambda a: a["neighbours"].fill(0)),
    "no threshold": changed(BANK, lambda a: a["threshold"].fill(np.nan)),
    "a bank that is none": changed(BANK, lambda a: a["bank"].fill(np.inf)),
    "other features recorded": changed(ANSWERS, lambda a: a.update(features=np.ones((4, 17), np.float32))),
    "fewer probabilities": changed(ANSWERS, lambda a: a.update(probabilities=np.ones((4, 1)))),
    "answers of no rows": changed(ANSWERS, lambda a: a.update({k: v[:0] for k, v in a.items()})),
    "no temperature": said(head={"name": "linear", "config": {}}),
    "a temperature of 0": said(head={"name": "linear", "config": {"temperature": 0}}),
    "labels absent that are none": said(
        head={"name": "linear", "config": {"temperature": 1.0, "absent": [7]}}
    ),
    "labels absent that are text": said(
        head={"name": "linear", "config": {"temperature": 1.0, "absent": "all"}}
    ),
    "another kind of head": said(head={"name": "mlp", "config": {"temperature": 1.0}}),
    "a kernel": said(head={"name": "kernel", "config": {"temperature": 1.0}}),
    "no such head": said(head={"name": "os.system", "config": {}}),
    "no such backbone": said(backbone={"name": "pickle", "config": {}}),
    "a backbone without its config": said(backbone={"name": "toy", "config": {}}),
    "a backbone without its source": said(backbone={"name": "images", "config": {}}),
    "another kind of rows": said(kind="image"),
    "more labels": said(labels=["a", "b", "c", "d"]),
    "no labels": said(labels=[]),
    "one label twice": said(labels=["a", "a", "b"]),
    "a lone surrogate": said(labels=["\ud800", "a", "b"]),
    "a file outside": lambda folder: edit(folder, files={"../../etc/passwd": "0" * 64}),
    "a file from the root": lambda folder: edit(folder, files={"/etc/passwd": "0" * 64}),
    "a file with a NUL": lambda folder: edit(folder, files={"a\0b": "0" * 64}),
    "a file name too long": lambda folder: edit(folder, files={"a" * 5000: "0" * 64}),
    "no files": said(files={}),
    "weights elsewhere": said(source={**SOURCE, "files": {"../../model.safetensors": "0" * 64}}),
    "weights that are not listed": said(source={**SOURCE, "weights": ["other"]}),
    "no weights": said(source={**SOURCE, "weights": []}),
    "another digest": said(source={**SOURCE, "weights_sha256": "1" * 64}),
}


@pytest.mark.parametrize("case", HOSTILE)
@pytest.mark.parametrize("first", [True, False], ids=["first", "further"])
def test_hostile_artefacts_are_refused_in_one_line(tmp_path: Path, case: str, first: bool) -> None:
    folder = save(tmp_path / "bad.graft", familiar=tiny_tasks.known())
    HOSTILE[case](folder)
    tasks = Tasks(ROOMY, offline=True)
    if not first:
        tasks.get(save(tmp_path / "good.graft"))
    for refuse in (tasks.get, lambda one: check(one, network=True, offline=True)):
        with pytest.raises(ArtefactError) as refused:
            refuse(folder)
        assert "\n" not in str(refused.value) and len(str(refused.value)) < 700
    assert tasks.held(folder) is None


def test_a_link_out_of_an_artefact_is_not_followed(tmp_path: Path) -> None:
    folder = save(tmp_path / "a.graft")
    secret = tmp_path / "secret"
    secret.write_bytes((folder / HEAD).read_bytes())
    (folder / HEAD).unlink()
    (folder / HEAD).symlink_to(secret)
    with pytest.raises(ArtefactError, match="outside itself"):
        Tasks(ROOMY).get(folder)


def test_a_source_that_lies_in_a_device_or_a_pipe_is_not_read(tmp_path: Path) -> None:
    folder = save(tmp_path / "a.graft")
    os.mkfifo(tmp_path / "pipe")
    for place, name in (("/dev", "zero"), (str(tmp_path), "pipe")):
        files = {name: "0" * 64}
        edit(folder, source={**SOURCE, "folder": place, "files": files, "weights": [name]})
        with pytest.raises(artefact.RequestError, match="no source with weights of SHA-256"):
            Tasks(ROOMY, offline=True).get(folder)


def test_check_passes_what_is_sound_and_builds_no_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = save(tmp_path / "a.graft", familiar=tiny_tasks.known())
    assert check(folder, network=True).labels == list(tiny_tasks.LABELS)
    monkeypatch.setattr(opening, "backbone_of", never)
    check(folder)


def test_check_refuses_a_file_that_nobody_lists(tmp_path: Path) -> None:
    folder = save(tmp_path / "a.graft")
    (folder / "source").mkdir()
    (folder / "source" / "modeling.py").write_text("import os")
    with pytest.raises(ArtefactError, match=r"'source/modeling\.py', which its manifest does not name"):
        check(folder)


def test_every_digest_is_looked_at_when_a_task_is_opened_first(tmp_path: Path) -> None:
    folder = save(tmp_path / "a.graft")
    for name in json.loads((folder / "manifest.json").read_text())["files"]:
        before = (folder / name).read_bytes()
        (folder / name).write_bytes(before + b" ")
        with pytest.raises(ArtefactError, match="damaged"):
            Tasks(ROOMY).get(folder)
        (folder / name).write_bytes(before)
    assert Tasks(ROOMY).get(folder).digest == artefact.digest(folder)
