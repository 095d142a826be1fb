"""Many tasks behind one door: what each artefact answers by itself, whatever is asked beside it."""

import asyncio
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import tiny
import tiny_audio
import tiny_onnx
import tiny_tasks
import toys
from graftwork import artefact
from graftwork.backbones import onnx_session, open_backbone
from graftwork.backbones.base import Backbone
from graftwork.backbones.descriptor import Descriptor
from graftwork.backbones.logmel import LogMel
from graftwork.backbones.reader import Whole
from graftwork.backbones.thumbnail import Thumbnail
from graftwork.errors import ArtefactError, Busy, RequestError, Unreadable
from graftwork.heads import LinearHead
from graftwork.model import Model
from graftwork.rows import Contents, Rows
from graftwork.serving import Serving
from graftwork.serving.batching import Line
from graftwork.serving.finishing import Finishing, Request
from graftwork.serving.records import Item, Replies
from graftwork.serving.tasks import Task
from graftwork.sources import find
from graftwork.unknown import Familiarity

LABELS = ("a", "b", "c")
Made = Callable[..., Serving]


@pytest.fixture
def made() -> Iterator[Made]:
    """Servings with sensible limits, closed in the end."""
    all_of_them = []

    def one(**changes: Any) -> Serving:
        limits: dict[str, Any] = {
            "head_memory": 10**8, "backbone_memory": 10**9, "readers": 1, "reading_bytes": 10**9,
            "reading_seconds": 30.0,
        }  # fmt: skip
        all_of_them.append(Serving(**{**limits, **changes}))
        return all_of_them[-1]

    yield one
    for serving in all_of_them:
        serving.close()


def items_of(rows: Rows) -> list[Item]:
    column = rows.column
    if isinstance(column, Contents):
        return list(column.contents)
    return [column.read(i).decode() for i in range(len(rows))]


def save(folder: Path, backbone: Backbone, rows: Rows, seed: int = 0, known: bool = True) -> Path:
    """An artefact with a random head on the backbone."""
    rng = np.random.default_rng(seed)
    features = backbone.features(rows).matrix
    weights = rng.normal(size=(backbone.width, 3)) / features.std() / np.sqrt(backbone.width)
    head = LinearHead.of(LABELS, weights, rng.normal(size=3), 1.3)
    familiar = Familiarity.fit(features, rng.integers(0, 3, len(rows))) if known else None
    return artefact.save(
        Model(backbone, head, familiar), folder, strategy="probe", result={}, versions={},
        created="2026-01-01T00:00:00+00:00", report="", probe=rows.take(np.arange(3)),
    )  # fmt: skip


def ask(serving: Serving, folders: list[Path], items: list[Item]) -> list[Replies]:
    return asyncio.run(serving.answer(folders, items))


def same(replies: Replies, folder: Path, rows: Rows) -> None:
    """Held against the model of the artefact by itself."""
    alone = artefact.load(folder)[0].answer(rows)
    assert replies.labels == alone.labels and dict(replies.unreadable) == dict(alone.unreadable)
    np.testing.assert_allclose(replies.probabilities, alone.probabilities, rtol=1e-10, atol=1e-13)
    assert np.array_equal(replies.unknown, alone.unknown)


def spoilt(rows: Rows) -> Rows:
    """The rows, some of which are no pictures or recordings."""
    contents = [*(rows.column.read(i) for i in range(len(rows))), b"neither", b""]
    contents += [contents[0][: len(contents[0]) // 2]]
    names = [str(i) for i in range(len(contents))]
    return Rows(names, {rows.kind: Contents(rows.kind, contents)})


BACKBONES: dict[str, Callable[[Path], Backbone | Path | str]] = {
    "images": tiny.resnet,
    "texts": tiny.bert,
    "compact": lambda _: "glyphs",
    "waves": lambda place: tiny_audio.waves(place, "wav2vec2"),
    "spectrograms": tiny_audio.ast,
    "onnx pictures": lambda place: tiny_onnx.pictures(place / "net.onnx"),
    "descriptor": lambda _: Descriptor(),
    "thumbnail": lambda _: Thumbnail(),
    "logmel": lambda _: LogMel(),
}


def rows_of(kind: str) -> Rows:
    if kind == "audio":
        return tiny_audio.rows(0.3, 0.5, 0.7, 1.2, 4.5, 21.0)
    return tiny.image_rows(9) if kind == "image" else tiny.text_rows(40)


@pytest.mark.parametrize("name", BACKBONES)
def test_every_family_answers_as_its_model_does_by_itself(
    name: str, made: Made, tmp_path: Path, settled_home: Path
) -> None:
    given = BACKBONES[name](tmp_path / "source")
    backbone = open_backbone(find(str(given)), None) if isinstance(given, str | Path) else given
    rows = rows_of(backbone.kind)
    folder = save(tmp_path / "m.graft", backbone, rows)
    asked = rows if rows.kind == "text" else spoilt(rows)
    (replies,) = ask(made(), [folder], items_of(asked))
    same(replies, folder, asked)
    assert len(replies.unreadable) == (0 if rows.kind == "text" else 3)


@pytest.mark.parametrize("kind", ["image", "text"])
def test_a_network_of_onnxruntime_goes_with_its_backbone(
    kind: str, made: Made, tmp_path: Path, settled_home: Path
) -> None:
    place = tmp_path / "source"
    place.mkdir()
    source = tiny_onnx.texts(place) if kind == "text" else tiny_onnx.pictures(place / "net.onnx")
    backbone, rows = open_backbone(find(str(source)), None), rows_of(kind)
    folder, serving = save(tmp_path / "m.graft", backbone, rows), made()
    (replies,) = ask(serving, [folder], items_of(rows))
    same(replies, folder, rows)
    assert onnx_session._sessions
    serving.close()
    assert not onnx_session._sessions
    whole = Whole(backbone.kind, backbone.state())
    whole.release()  # nothing was opened
    with pytest.raises(Unreadable):
        whole(b"")
    assert onnx_session._sessions
    whole.release()
    assert not onnx_session._sessions


def test_torch_answers_as_soon_as_a_row_is_done(made: Made, tmp_path: Path, settled_home: Path) -> None:
    backbone = open_backbone(find(str(tiny.resnet(tmp_path / "source"))), None, runtime="torch")
    rows = tiny.image_rows(5)
    folder, serving = save(tmp_path / "m.graft", backbone, rows), made()
    for i in range(len(rows)):
        one = rows.take(np.array([i]))
        same(ask(serving, [folder], items_of(one))[0], folder, one)
    assert serving.backbones()[0].runtime == "torch"


def test_requests_of_many_tasks_at_once_are_told_what_each_is_told_alone(
    made: Made, tmp_path: Path, settled_home: Path
) -> None:
    backbone = open_backbone(find(str(tiny.bert(tmp_path / "source"))), None)
    rows = tiny.text_rows(60)
    folders = [save(tmp_path / f"{i}.graft", backbone, rows, seed=i) for i in range(5)]
    serving = made()

    async def all_at_once() -> list[list[Replies]]:
        return await asyncio.gather(
            *(serving.answer([folders[i % 5]], items_of(rows)[i : i + 1 + i % 3]) for i in range(50))
        )

    for i, (replies,) in enumerate(asyncio.run(all_at_once())):
        same(replies, folders[i % 5], rows.take(np.arange(i, i + 1 + i % 3)))
    (held,) = serving.backbones()
    assert (held.tasks, held.kind, held.width, held.rows) == (
        5,
        "text",
        16,
        sum(1 + i % 3 for i in range(50)),
    )
    figures = serving.figures()
    assert figures["batches"] < figures["rows"] and figures["inputs"] == 0


# With a toy backbone, which remembers what it was asked


@pytest.fixture
def toy(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """Toys are known; what their backbones are asked beyond the replay of an artefact's rows."""
    toys.register(monkeypatch)
    asked: list[list[str]] = []
    features = toys.ToyBackbone.features

    def remembered(self: toys.ToyBackbone, rows: Rows, *rest: Any) -> Any:
        texts = [rows.column.read(i).decode() for i in range(len(rows))]
        if texts != tiny_tasks.TEXTS:
            asked.append(texts)
        return features(self, rows, *rest)

    monkeypatch.setattr(toys.ToyBackbone, "features", remembered)
    return asked


def text_answers(folder: Path, texts: list[str]) -> np.ndarray:
    return artefact.load(folder)[0].predict_proba(texts)


def test_an_input_asked_of_several_tasks_is_computed_once(
    made: Made, toy: list[list[str]], tmp_path: Path
) -> None:
    folders = [tiny_tasks.save(tmp_path / f"{i}.graft", tiny_tasks.head(seed=i)) for i in range(4)]
    replies = ask(made(), folders, ["one", "two", "one", "one"])
    assert sorted(text for batch in toy for text in batch) == ["one", "two"]
    for folder, one in zip(folders, replies, strict=True):
        np.testing.assert_allclose(one.probabilities, text_answers(folder, ["one", "two", "one", "one"]))


def test_tasks_on_several_backbones_are_answered_in_the_order_asked(
    made: Made, toy: list[list[str]], tmp_path: Path
) -> None:
    folders = [tiny_tasks.save(tmp_path / f"{i}.graft", scale=1.0 + i % 2) for i in range(4)]
    serving = made()
    replies = ask(serving, folders, ["some text"])
    for folder, one in zip(folders, replies, strict=True):
        np.testing.assert_allclose(one.probabilities, text_answers(folder, ["some text"]))
    assert {held.fingerprint: held.tasks for held in serving.backbones()} == {"toy-1.0": 2, "toy-2.0": 2}


def test_concurrent_requests_share_one_run(made: Made, toy: list[list[str]], tmp_path: Path) -> None:
    folders = [tiny_tasks.save(tmp_path / f"{i}.graft", tiny_tasks.head(seed=i)) for i in range(10)]
    serving = made()
    serving.warm(folders)

    async def all_at_once() -> None:
        await asyncio.gather(*(serving.answer([one], [f"text {i}"]) for i, one in enumerate(folders * 3)))

    asyncio.run(all_at_once())
    assert sum(map(len, toy)) == 30 and len(toy) <= 4


def test_no_input_gives_no_answers(made: Made, toy: list[list[str]], tmp_path: Path) -> None:
    folder = tiny_tasks.save(tmp_path / "m.graft")
    (replies,) = ask(made(), [folder], [])
    assert replies.probabilities.shape == (0, 3) and replies.labels == tiny_tasks.LABELS
    assert ask(made(), [], ["text"]) == []


def test_another_kind_of_input_is_refused(made: Made, toy: list[list[str]], tmp_path: Path) -> None:
    folder = tiny_tasks.save(tmp_path / "m.graft")
    with pytest.raises(RequestError, match="this model takes texts, input 1 is a file"):
        ask(made(), [folder], ["text", b"bytes"])


def test_an_artefact_that_is_damaged_or_gone_is_refused_and_others_answer(
    made: Made, toy: list[list[str]], tmp_path: Path
) -> None:
    good, bad = tiny_tasks.save(tmp_path / "good.graft"), tiny_tasks.save(tmp_path / "bad.graft")
    (bad / "head.safetensors").write_bytes(b"damaged")
    serving = made()
    for folder in (bad, tmp_path / "none.graft"):
        with pytest.raises(ArtefactError):
            ask(serving, [good, folder], ["text"])
    assert len(ask(serving, [good], ["text"])) == 1
    assert serving.figures()["inputs"] == 0


def test_a_full_queue_refuses_and_takes_again_once_it_has_room(
    made: Made, toy: list[list[str]], tmp_path: Path
) -> None:
    folder, serving = tiny_tasks.save(tmp_path / "m.graft"), made(queue=8)

    async def crowd() -> tuple[list[Any], list[Replies]]:
        found = await asyncio.gather(
            *(serving.answer([folder], [f"{i} {k}" for k in range(4)]) for i in range(5)),
            return_exceptions=True,
        )
        return found, await serving.answer([folder], ["later"] * 20)

    found, later = asyncio.run(crowd())
    assert [isinstance(one, Busy) for one in found] == [False, False, True, True, True]
    assert len(later[0].probabilities) == 20, "a large request alone is answered"
    assert serving.figures()["refused"] == 3


def test_draining_answers_everything_that_was_accepted(
    made: Made, toy: list[list[str]], tmp_path: Path
) -> None:
    folder, serving = tiny_tasks.save(tmp_path / "m.graft"), made()

    async def drained() -> list[bool]:
        asked = [asyncio.ensure_future(serving.answer([folder], [f"{i}"])) for i in range(50)]
        await asyncio.sleep(0)
        await serving.drain()
        return [one.done() and not one.exception() for one in asked]

    assert asyncio.run(drained()) == [True] * 50


def test_a_request_that_is_cancelled_leaves_nothing_behind(
    made: Made, toy: list[list[str]], tmp_path: Path
) -> None:
    folder, serving = tiny_tasks.save(tmp_path / "m.graft"), made()

    async def impatient() -> None:
        asked = asyncio.ensure_future(serving.answer([folder], ["text"] * 3))
        await asyncio.sleep(0)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked
        await serving.drain()
        await serving.answer([folder], ["another"])

    asyncio.run(impatient())
    assert serving.figures()["inputs"] == 0


def test_a_head_that_fails_fails_its_own_request_alone(
    made: Made, toy: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    good = tiny_tasks.save(tmp_path / "good.graft", tiny_tasks.head("mlp"))
    bad = tiny_tasks.save(tmp_path / "bad.graft", tiny_tasks.head("kernel"))
    serving = made()
    serving.warm([good, bad])

    def broken(self: object, features: object) -> None:
        raise FloatingPointError("a head that cannot")

    monkeypatch.setattr("graftwork.kernel_head.KernelHead.logits", broken)

    async def both() -> list[Any]:
        asked = (serving.answer([one], ["text"]) for one in (good, bad, good))
        return await asyncio.gather(*asked, return_exceptions=True)

    first, failed, third = asyncio.run(both())
    assert isinstance(failed, FloatingPointError)
    assert np.array_equal(first[0].probabilities, third[0].probabilities)


def test_a_replaced_artefact_answers_anew(made: Made, toy: list[list[str]], tmp_path: Path) -> None:
    folder, serving = tiny_tasks.save(tmp_path / "m.graft"), made()
    before = ask(serving, [folder], ["text"])[0].probabilities
    tiny_tasks.save(folder, tiny_tasks.head(seed=9))
    serving.forget(folder)
    after = ask(serving, [folder], ["text"])[0].probabilities
    assert not np.allclose(before, after)
    np.testing.assert_allclose(after, text_answers(folder, ["text"]))


def test_backbones_asked_longest_ago_make_room_and_come_back(
    made: Made, toy: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graftwork.serving.pool.weigh", lambda backbone, readers: 100)
    folders = [tiny_tasks.save(tmp_path / f"{i}.graft", scale=1.0 + i) for i in range(3)]
    serving = made(backbone_memory=250)
    for i in (0, 1, 0, 2, 0, 1):
        (replies,) = ask(serving, [folders[i]], ["text"])
        np.testing.assert_allclose(replies.probabilities, text_answers(folders[i], ["text"]))
        assert serving.figures()["backbone_bytes"] <= 250
    assert [held.fingerprint for held in serving.backbones()] == ["toy-1.0", "toy-2.0"]


def test_a_backbone_that_is_loading_holds_up_nobody_else(
    made: Made, toy: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from graftwork.serving import pool

    quick, slow = tiny_tasks.save(tmp_path / "q.graft"), tiny_tasks.save(tmp_path / "s.graft", scale=2.0)
    serving, loading = made(), threading.Event()
    way_of = pool.way_of

    def slowly(backbone: Backbone) -> Any:
        assert backbone.fingerprint != "toy-2.0" or loading.wait(60)
        return way_of(backbone)

    monkeypatch.setattr(pool, "way_of", slowly)

    async def both() -> None:
        waiting = [asyncio.ensure_future(serving.answer([slow], [f"{i}"])) for i in range(3)]
        for i in range(20):
            await serving.answer([quick], [f"{i}"])
        assert not any(one.done() for one in waiting)
        loading.set()
        await asyncio.gather(*waiting)

    asyncio.run(both())
    assert len(serving.backbones()) == 2


def test_however_many_ask_for_one_that_opens_slowly_others_are_answered(
    made: Made, toy: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    quick, slow = tiny_tasks.save(tmp_path / "q.graft"), tiny_tasks.save(tmp_path / "s.graft", scale=2.0)
    serving, opened = made(), threading.Event()
    get = serving._tasks.get
    monkeypatch.setattr(
        serving._tasks, "get", lambda folder: get(folder) if folder == quick or opened.wait(60) else None
    )

    async def crowd() -> list[list[Replies]]:
        waiting = [asyncio.ensure_future(serving.answer([slow], [f"{i}"])) for i in range(100)]
        await asyncio.sleep(0)
        assert await asyncio.wait_for(serving.answer([quick], ["text"]), 60)
        waiting[0].cancel()  # whoever was first and goes takes nothing from the others
        opened.set()
        return await asyncio.gather(*waiting[1:])

    assert len(asyncio.run(crowd())) == 99
    assert serving.figures()["tasks_opened"] == 2


def test_a_request_of_several_backbones_that_is_cancelled_asks_nothing_more(
    made: Made, toy: list[list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folders = [tiny_tasks.save(tmp_path / f"{i}.graft", scale=1.0 + i) for i in range(2)]
    serving, requests = made(), list[Request]()
    serving.warm(folders)
    monkeypatch.setattr(Line, "ask", lambda line, request: not requests.append(request))  # never answered

    async def impatient() -> None:
        asked = asyncio.ensure_future(serving.answer(folders, ["text"]))
        await asyncio.sleep(0.01)
        asked.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asked

    asyncio.run(impatient())
    assert [one.gone for one in requests] == [True, True] and all(one.answer.cancelled() for one in requests)


def test_answers_that_are_whole_at_the_same_moment_on_two_threads_are_all_told() -> None:
    class Told(Finishing):
        """Another thread comes whenever the lock is given back."""

        def __init__(self) -> None:
            super().__init__()
            self.held, self.next = threading.Lock(), list[Request]()
            self._lock = self  # type: ignore[assignment]

        def __enter__(self) -> None:
            self.held.acquire()

        def __exit__(self, *_: object) -> None:
            self.held.release()
            if self.next:
                self.put(self.next.pop())

    async def both() -> None:
        finishing, loop = Told(), asyncio.get_running_loop()
        task = Task(Path("t.graft"), "", "text", LABELS, tiny_tasks.head(), None, "toy", 0, "toy")
        none, nowhere = np.empty((0, toys.WIDTH), np.float32), np.zeros(0, np.int64)
        first, second = (
            Request([], none, [task], nowhere, loop.create_future(), finishing) for _ in range(2)
        )
        finishing.next.append(second)
        finishing.put(first)
        await asyncio.wait_for(asyncio.gather(first.answer, second.answer), 60)
        finishing.close()

    asyncio.run(both())


def test_what_is_not_answered_when_the_server_closes_fails(
    made: Made, toy: list[list[str]], tmp_path: Path
) -> None:
    folder, serving = tiny_tasks.save(tmp_path / "m.graft"), made()
    ask(serving, [folder], ["text"])
    serving.close()
    with pytest.raises(RuntimeError):
        ask(serving, [tmp_path / "other.graft"], ["text"])


# Hostile pictures, through the real reader and network


def test_a_picture_bomb_and_its_like_are_unreadable_and_neighbours_are_answered(
    made: Made, tmp_path: Path
) -> None:
    import struct
    import zlib

    backbone = open_backbone(find("glyphs"), None)
    rows = tiny.image_rows(4)
    folder = save(tmp_path / "m.graft", backbone, rows)

    def png(width: int, height: int, data: bytes) -> bytes:
        def chunk(kind: bytes, content: bytes) -> bytes:
            return (
                struct.pack(">I", len(content)) + kind + content
                + struct.pack(">I", zlib.crc32(kind + content))
            )  # fmt: skip

        header = struct.pack(">IIBBBBB", width, height, 8, 6, 0, 0, 0)
        return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", data) + chunk(b"IEND", b"")

    bomb = png(50_000, 50_000, zlib.compress(bytes(10_000_000)))
    large = png(9_000, 9_000, zlib.compress(bytes(9_000 * (1 + 4 * 9_000))))
    good = items_of(rows)
    serving = made(reading_bytes=300_000_000)
    (replies,) = ask(serving, [folder], [good[0], bomb, good[1], large, b"GIF89a", good[2]])
    assert set(replies.unreadable) == {1, 3, 4}
    assert "too many pixels" in replies.unreadable[1]
    assert replies.unreadable[3] == "does not fit into memory"
    (alone,) = ask(serving, [folder], good[:3])
    np.testing.assert_array_equal(replies.probabilities[[0, 2, 5]], alone.probabilities)
