"""One line a backbone: nothing waits for a batch to fill, everybody has a turn, what fails fails alone."""

import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np
import pytest
from numpy.typing import NDArray

from graftwork.backbones.engine import Batch
from graftwork.backbones.served import Prepared
from graftwork.errors import WorkError
from graftwork.rows import IntArray
from graftwork.serving import batching
from graftwork.serving.batching import Asked, Line
from graftwork.serving.reading import Readers
from graftwork.serving.ways import Way
from tiny_readings import Obedient

SECONDS = 120


@dataclass
class Network:
    """Adds up each row, once a batch at a time is let through; remembers its batches."""

    slots: int = 1
    seen: list[list[float]] = field(default_factory=list)
    gate: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    came: threading.Condition = field(default_factory=threading.Condition)

    def run(self, batches: Iterable[Batch], sink: Callable[[IntArray, NDArray[np.float32]], None]) -> None:
        for positions, (rows, *_) in batches:
            with self.came:
                self.seen.append(rows[:, 0].tolist())
                self.came.notify_all()
            assert self.gate.acquire(timeout=SECONDS)
            if rows[0, 0] < 0:
                raise ValueError("a negative number")
            sink(positions, rows.sum(axis=1, keepdims=True))

    def wait_for(self, batches: int) -> None:
        """Until so many batches have been begun."""
        with self.came:
            assert self.came.wait_for(lambda: len(self.seen) >= batches, SECONDS), self.seen

    def open(self, batches: int = 10_000) -> None:
        self.gate.release(batches)


@dataclass(eq=False)
class Question(Asked):
    done: threading.Event = field(default_factory=threading.Event)
    finished: int = 0

    def finish(self) -> None:
        self.finished += 1
        self.done.set()

    def wait(self) -> list[float]:
        assert self.done.wait(SECONDS) and self.finished == 1
        if self.failure is not None:
            raise self.failure
        return self.features[:, 0].tolist()


def question(*contents: str | bytes) -> Question:
    return Question(contents, np.empty((len(contents), 1), np.float32))


def prepared(texts: Sequence[str]) -> list[Prepared]:
    """A text of numbers is one row of them; those of one length go together."""
    return [Prepared.single(np.array([[float(one) for one in text.split()]])) for text in texts]


def joined(features: NDArray[np.float32], lengths: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(lengths @ features)


@contextmanager
def line_of(network: Network, together: int = 4, apart: bool = False) -> Iterator[Line]:
    readers = Readers(2, 10**9, SECONDS)
    reading, here = (Obedient(), None) if apart else (None, prepared)
    line = Line(Way(reading, here, network, lambda _: together, joined, "toy", "f32"), 1, readers)
    try:
        yield line
    finally:
        network.open()
        readers.close()
        line.close()


@pytest.fixture
def network() -> Network:
    return Network()


def test_an_idle_line_answers_at_once_and_alone(network: Network) -> None:
    with line_of(network) as line:
        for i in range(3):
            asked = question(f"{i} 1")
            line.ask(asked)
            network.open(1)
            assert asked.wait() == [i + 1]
    assert network.seen == [[0.0], [1.0], [2.0]]


def test_what_gathers_while_the_network_works_goes_through_it_together(network: Network) -> None:
    with line_of(network) as line:
        asked = [question(f"{i}") for i in range(1, 6)]
        line.ask(asked[0])
        network.wait_for(1)
        for one in asked[1:]:
            line.ask(one)
        network.open()
        assert [one.wait() for one in asked] == [[i] for i in range(1, 6)]
    assert network.seen == [[1.0], [2.0, 3.0, 4.0, 5.0]]
    assert (line.batches, line.rows) == (2, 5)


def test_no_batch_is_larger_than_the_network_likes_nor_mixes_shapes(network: Network) -> None:
    with line_of(network, together=3) as line:
        first = question("0")
        line.ask(first)
        network.wait_for(1)
        rest = question(*(" ".join(["1"] * (1 + i % 2)) for i in range(14)))
        line.ask(rest)
        network.open()
        assert rest.wait() == [1 + i % 2 for i in range(14)]
    assert sorted(map(len, network.seen[1:])) == [1, 1, 3, 3, 3, 3]


def test_a_large_request_does_not_keep_a_small_one_waiting(network: Network) -> None:
    with line_of(network, together=1) as line:
        large = question(*(f"{i}" for i in range(1, 257)))
        line.ask(large)
        network.wait_for(1)
        small = question("1000")
        line.ask(small)
        network.open(4)
        assert small.wait() == [1000]
        assert not large.done.is_set()
        network.open()
        assert large.wait() == list(range(1, 257))
    assert 1000.0 in [batch[0] for batch in network.seen[:4]]


def test_two_large_requests_take_turns(network: Network) -> None:
    with line_of(network, together=1) as line:
        first = question("0")
        line.ask(first)
        network.wait_for(1)
        one, other = question(*["1"] * 20), question(*["2"] * 20)
        line.ask(one)
        line.ask(other)
        network.open()
        one.wait(), other.wait()
    order = [batch[0] for batch in network.seen[1:]]
    assert all(abs(order[:n].count(1.0) - order[:n].count(2.0)) <= 1 for n in range(1, 41))


def test_a_request_that_nobody_waits_for_any_more_costs_nothing(network: Network) -> None:
    with line_of(network, together=1) as line:
        line.ask(question("0"))
        network.wait_for(1)
        gone, kept = question(*["1"] * 50), question("2")
        line.ask(gone)
        line.ask(kept)
        gone.gone = True
        network.open()
        assert kept.wait() == [2]
    assert [1.0] not in network.seen


def test_a_batch_that_fails_is_an_error_for_those_in_it_and_the_next_is_answered(network: Network) -> None:
    with line_of(network) as line:
        bad, good = question("-1"), question("5")
        network.open()
        line.ask(bad)
        with pytest.raises(ValueError, match="a negative number"):
            bad.wait()
        line.ask(good)
        assert good.wait() == [5]


def test_a_text_that_cannot_be_prepared_is_an_error_for_its_request(network: Network) -> None:
    with line_of(network) as line:
        network.open()
        bad = question("no number")
        line.ask(bad)
        with pytest.raises(ValueError, match="could not convert"):
            bad.wait()
        good = question("5")
        line.ask(good)
        assert good.wait() == [5]


def test_a_text_that_cannot_be_prepared_fails_alone(network: Network) -> None:
    with line_of(network) as line:
        line.ask(question("0"))
        network.wait_for(1)
        good, bad = question("5", "6"), question("no number")
        held = threading.Event()
        texts = line._texts_waiting  # both are taken up together
        line._texts_waiting = lambda: texts() if held.is_set() else []  # type: ignore[method-assign]
        line.ask(good), line.ask(bad)
        held.set()
        network.open()
        assert good.wait() == [5, 6]
        with pytest.raises(ValueError, match="could not convert"):
            bad.wait()


def test_a_line_retires_only_where_nothing_is_asked_of_it(network: Network) -> None:
    preparing, go_on = threading.Event(), threading.Event()

    def slowly(texts: Sequence[str]) -> list[Prepared]:
        preparing.set()
        assert go_on.wait(SECONDS)
        return prepared(texts)

    readers = Readers(1, 10**9, SECONDS)
    line = Line(Way(None, slowly, network, lambda _: 4, joined, "toy", "f32"), 1, readers)
    asked = question("5")
    line.ask(asked)
    assert preparing.wait(SECONDS)
    assert not line.retire(), "a text is being prepared"
    go_on.set()
    network.wait_for(1)
    assert not line.retire(), "the network is at work"
    network.open()
    assert asked.wait() == [5]
    assert line.retire() and not line.ask(question("6"))
    line.close()
    readers.close()


def test_a_network_that_gives_no_answer_is_not_waited_for_without_end(
    network: Network, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Deaf(Network):
        def run(self, batches: Iterable[Batch], sink: object) -> None:
            for _ in batches:
                pass  # as if what it computes had been lost

    monkeypatch.setattr(batching, "PATIENCE_S", 0.05)
    with line_of(Deaf()) as line:
        asked = question("1")
        line.ask(asked)
        with pytest.raises(WorkError, match="gave no answer"):
            asked.wait()


def test_numbers_that_are_none_make_an_input_unreadable(network: Network) -> None:
    network.open()
    with line_of(network) as line:
        asked = question("1", "nan", "3 inf")
        line.ask(asked)
        asked.wait()
    assert asked.unreadable == dict.fromkeys((1, 2), "has features that are no numbers")
    assert np.isnan(asked.features[1:]).all() and asked.features[0] == 1


def test_contents_are_read_apart_and_bad_ones_alone_are_unreadable(network: Network) -> None:
    network.open()
    with line_of(network, apart=True) as line:
        asked = question(b"\x01\x02", b"refuse", b"crash", b"\x04")
        line.ask(asked)
        found = asked.wait()
    assert (found[0], found[3]) == (3, 4)
    assert asked.unreadable == {1: "is not wanted", 2: "crashes its decoder"}


def test_features_of_another_width_than_the_backbones_are_not_believed() -> None:
    readers = Readers(1, 10**9, SECONDS)
    line = Line(Way(Obedient(), None, None, lambda _: 1, joined, "toy", "f32"), 1, readers)
    asked = question(b"\x01\x02", b"\x03")
    line.ask(asked)
    assert asked.wait()[1] == 3 and list(asked.unreadable) == [0]
    readers.close()
    line.close()


def test_windows_of_a_recording_are_joined_by_their_lengths(network: Network) -> None:
    network.open()
    network.slots = 2
    with line_of(network, together=1, apart=True) as line:
        asked = question(b"windows")
        line.ask(asked)
        # four windows: i, i, i each, of lengths i
        assert asked.wait() == [sum(3 * i * i for i in range(4))]


def test_only_so_many_contents_are_read_ahead_of_the_network(network: Network) -> None:
    with line_of(network, together=1, apart=True) as line:
        asked = question(*[b"\x01"] * 100)
        line.ask(asked)
        network.wait_for(1)
        assert line.waiting >= 100 - line._most_ahead - 1
        network.open()
        assert asked.wait() == [1] * 100
        assert line.idle


def test_a_line_that_closes_fails_what_waits_and_takes_no_more(network: Network) -> None:
    with line_of(network) as line:
        begun, waiting = question("1"), question("2")
        line.ask(begun)
        network.wait_for(1)
        line.ask(waiting)
        closing = threading.Thread(target=line.close)
        closing.start()
        while line.ask(question("3")):
            pass
        network.open()
        closing.join()
        assert begun.wait() == [1]
        with pytest.raises(WorkError, match="ask again"):
            waiting.wait()
