"""Low-rank tasks of one source behind one door: one network, one line, each with its own answers."""

import asyncio
import shutil
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

import tiny
import tiny_tasks
from graftwork import artefact
from graftwork.backbones import open_backbone
from graftwork.backbones.learnt import LORA_A, LORA_B, PAIRS
from graftwork.backbones.pretrained import Pretrained
from graftwork.model import Model
from graftwork.rows import Contents, Rows
from graftwork.serving import Serving
from graftwork.serving.records import Item, Replies
from graftwork.serving.tasks import Tasks
from graftwork.sources import find
from graftwork.strategies.lora import targets

TEXTS = tiny.text_rows(30)


@pytest.fixture
def serving() -> Iterator[Serving]:
    one = Serving(
        head_memory=10**8, backbone_memory=10**9, readers=1, reading_bytes=10**9, reading_seconds=30.0
    )
    yield one
    one.close()


def opened(made: Callable[[Path], Path], folder: Path) -> Pretrained:
    found = open_backbone(find(str(made(folder))), None)
    assert isinstance(found, Pretrained)
    return found


def adapted(backbone: Pretrained, seed: int, rank: int = 2) -> Pretrained:
    rng, network, learnt = np.random.default_rng(seed), backbone.network(), {}
    for name in targets(network, backbone.blocks(), "attention", "this source"):
        out, into = network.get_parameter(f"{name}.weight").shape
        learnt[f"{name}.weight{LORA_A}"] = (0.2 * rng.normal(size=(rank, into))).astype(np.float32)
        learnt[f"{name}.weight{LORA_B}"] = (0.2 * rng.normal(size=(out, rank))).astype(np.float32)
    found = backbone.tuned(learnt, None)
    assert PAIRS in found.config
    return found


def save(folder: Path, backbone: Pretrained, seed: int, probe: Rows) -> Path:
    # heads that are applied one by one, so that no order of sums hides a bit of a feature
    head = tiny_tasks.head("mlp", seed=seed)
    return artefact.save(
        Model(backbone, head), folder, strategy="lora", result={}, versions={}, created="", report="",
        probe=probe.take(np.arange(3)),
    )  # fmt: skip


def saved(tmp_path: Path, count: int) -> list[Path]:
    """Tasks of as many adapters of one text encoder."""
    backbone = opened(tiny.bert, tmp_path / "source")
    return [save(tmp_path / f"{i}.graft", adapted(backbone, i), i, TEXTS) for i in range(count)]


def items_of(rows: Rows) -> list[Item]:
    column = rows.column
    if isinstance(column, Contents):
        return list(column.contents)
    return [column.read(i).decode() for i in range(len(rows))]


@pytest.mark.parametrize("kind", ["text", "image"])
def test_mixed_requests_of_many_adapters_get_every_bit_of_what_each_model_says(
    kind: str, tmp_path: Path, settled_home: Path, serving: Serving
) -> None:
    source = opened(tiny.bert if kind == "text" else tiny.vit, tmp_path / "source")
    rows = TEXTS if kind == "text" else tiny.image_rows(6)
    backbones = [source, *(adapted(source, seed) for seed in range(4))]
    folders = [save(tmp_path / f"{i}.graft", one, i, rows) for i, one in enumerate(backbones)]
    items = items_of(rows)

    async def all_at_once() -> list[list[Replies]]:
        return await asyncio.gather(
            *(serving.answer([folders[i % 5]], [items[(i // 5) % len(items)]]) for i in range(100))
        )

    found = asyncio.run(all_at_once())
    models = [artefact.load(folder)[0] for folder in folders]
    for i, (replies,) in enumerate(found):
        alone = models[i % 5].answer(rows.take(np.array([(i // 5) % len(items)])))
        assert np.array_equal(replies.probabilities, alone.probabilities)
    own, shared = sorted(serving.backbones(), key=lambda one: one.adapters)
    assert (own.fingerprint, own.tasks, own.adapters, own.rows) == (source.fingerprint, 1, 0, 20)
    assert (shared.tasks, shared.adapters, shared.rows) == (4, 4, 80)
    assert own.bytes == shared.bytes
    assert serving.figures()["adapters_held"] == 4 and serving.figures()["backbones"] == 2


def test_one_request_of_several_adapters_is_answered_by_each(
    tmp_path: Path, settled_home: Path, serving: Serving
) -> None:
    folders = saved(tmp_path, 3)
    rows = TEXTS.take(np.arange(5))
    for replies, folder in zip(asyncio.run(serving.answer(folders, items_of(rows))), folders, strict=True):
        wanted = artefact.load(folder)[0].answer(rows).probabilities
        np.testing.assert_allclose(replies.probabilities, wanted, rtol=1e-12)


def test_an_adapter_that_goes_leaves_the_others_their_network(
    tmp_path: Path, settled_home: Path, serving: Serving
) -> None:
    folders = saved(tmp_path, 3)
    asyncio.run(serving.answer(folders, ["good"]))
    (before,) = serving.backbones()
    serving.forget(folders[0])
    shutil.rmtree(folders[0])
    asyncio.run(serving.answer(folders[1:], ["good"]))
    (after,) = serving.backbones()
    assert (after.tasks, after.adapters, after.rows) == (2, 2, before.rows + 2)
    assert [thread.name.startswith("line-") for thread in threading.enumerate()].count(True) == 1


def test_a_network_that_was_dropped_comes_back_by_any_of_its_adapters(
    tmp_path: Path, settled_home: Path
) -> None:
    folders, tasks = saved(tmp_path, 3), Tasks(10**9)
    found = [tasks.get(folder) for folder in folders]
    assert len({task.network for task in found}) == 1 and len({task.fingerprint for task in found}) == 3
    network = found[0].network
    tasks.drop(network)
    shutil.rmtree(folders[2])
    shutil.rmtree(folders[0])
    assert tasks.backbone(network).fingerprint == found[1].fingerprint
    assert tasks.counted() == {network: 3} and tasks.adapters() == {network: 3}


def test_an_adapters_bytes_are_its_tasks_and_go_with_it(tmp_path: Path, settled_home: Path) -> None:
    folders = saved(tmp_path, 3)
    tasks = Tasks(10**9)
    first = tasks.get(folders[0])
    numbers = 2 * 4 * 2 * (16 * 2)  # blocks, projections, matrices
    assert first.added.nbytes == 4 * numbers and first.bytes > first.added.nbytes
    small = Tasks(2 * first.bytes)
    kept = [small.get(folder) for folder in folders][2]
    assert small.figures()["tasks_held"] == 2 and small.adapters() == {kept.network: 2}
    assert np.array_equal(small.get(folders[0]).added.numbers, first.added.numbers)


def test_tasks_of_equal_pairs_have_them_once(tmp_path: Path, settled_home: Path) -> None:
    backbone = opened(tiny.bert, tmp_path / "source")
    folders = [save(tmp_path / f"{i}.graft", adapted(backbone, 0), i, TEXTS) for i in range(2)]
    tasks = Tasks(10**9)
    first, second = (tasks.get(folder) for folder in folders)
    assert first.added is second.added and tasks.adapters() == {first.network: 1}


def test_other_ranks_are_another_network(tmp_path: Path, settled_home: Path) -> None:
    backbone = opened(tiny.bert, tmp_path / "source")
    tasks = Tasks(10**9)
    two, three = (
        tasks.get(save(tmp_path / f"{rank}.graft", adapted(backbone, 0, rank), 0, TEXTS)) for rank in (2, 3)
    )
    assert two.network != three.network
