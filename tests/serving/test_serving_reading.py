"""Contents are read in processes under limits: whatever one does, the others are answered."""

import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

from graftwork.backbones.reader import AREA
from graftwork.backbones.served import Prepared, Reading
from graftwork.errors import GraftworkError, Unreadable, WorkError
from graftwork.serving.reading import Job, Readers
from tiny_readings import Obedient, Slow, Unloadable

MB = 1_000_000
NONSENSE = "broke its decoder (an answer that makes no sense)"


class Asking:
    """A line that asks for each of some contents once."""

    def __init__(self, readers: Readers, reading: Reading) -> None:
        self.readers, self.known = readers, readers.register(reading)
        self.waiting: deque[tuple[int, bytes]] = deque()
        self.outcomes: dict[int, Prepared | GraftworkError] = {}
        self.came = threading.Condition()

    def ask(self, *contents: bytes) -> list[Prepared | GraftworkError]:
        self.outcomes.clear()
        self.waiting.extend(enumerate(contents))
        self.readers.call(self)
        with self.came:
            assert self.came.wait_for(lambda: len(self.outcomes) == len(contents), 120)
        return [self.outcomes[i] for i in range(len(contents))]

    def next_job(self) -> Job | None:
        if not self.waiting:
            return None
        i, content = self.waiting.popleft()

        def done(outcome: Prepared | GraftworkError) -> None:
            with self.came:
                self.outcomes[i] = outcome
                self.came.notify()

        return Job(self.known, content, done)


@contextmanager
def asking(
    count: int = 1, most_bytes: int = 200 * MB, seconds: float = 120, reading: Reading | None = None
) -> Iterator[Asking]:
    readers = Readers(count, most_bytes, seconds)
    try:
        yield Asking(readers, Obedient() if reading is None else reading)
    finally:
        readers.close()


@pytest.fixture(scope="module")
def line() -> Iterator[Asking]:
    with asking() as one:
        yield one


def array(outcome: Prepared | GraftworkError) -> np.ndarray:
    assert isinstance(outcome, Prepared), outcome
    ((inputs,),) = outcome.windows
    return inputs


def reason(outcome: Prepared | GraftworkError) -> str:
    assert isinstance(outcome, Unreadable), outcome
    return str(outcome)


def test_what_was_read_comes_back_as_it_was_made(line: Asking) -> None:
    big = bytes(range(256)) * 2000
    for content, outcome in zip((b"abc", big), line.ask(b"abc", big), strict=True):
        assert np.array_equal(array(outcome)[0], np.frombuffer(content, np.uint8))
        assert array(outcome).dtype == np.float32 and array(outcome).flags.writeable
    (windows,) = line.ask(b"windows")
    assert isinstance(windows, Prepared)
    assert [(a.tolist(), b.tolist()) for a, b in windows.windows] == [([[i] * 3], [i]) for i in range(4)]
    assert windows.lengths.tolist() == [0, 1, 2, 3]


def test_inputs_of_one_content_are_not_those_of_the_next(line: Asking) -> None:
    first, second = line.ask(b"aaaa", b"bbbb")
    assert array(first).max() == ord("a") and array(second).min() == ord("b")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b"refuse", "is not wanted"),
        (b"crash", "crashes its decoder"),
        (b"leave", "crashes its decoder"),
        (b"killed", "does not fit into memory"),
        (b"allocate 900000000", "does not fit into memory"),
        (b"give %d" % (AREA + 1), "gives a network more than 64 MB"),
        (b"raise", "broke its decoder (ZeroDivisionError: surprising)"),
        (b"say {}", NONSENSE),
        (b"say " + b"[" * 100_000, NONSENSE),
        (b'say {"windows": 0, "arrays": [["<f8", [0]]]}', NONSENSE),
        (b'say {"windows": 1, "arrays": [["<f4", [1, 9]], ["<f8", [99999999999999999999]]]}', NONSENSE),
        (b'say {"windows": 1, "arrays": [["<f4", [2, 3]], ["<f8", [1]]]}', NONSENSE),
        (b'say {"windows": 1, "arrays": [["<U4", [1, 9]], ["<f8", [1]]]}', NONSENSE),
    ],
)
def test_a_content_that_cannot_be_read_has_a_reason_and_the_next_is_read(
    line: Asking, content: bytes, said: str
) -> None:
    before, bad, after = line.ask(b"before", content, b"after")
    assert reason(bad) == said
    assert len(array(before)[0]) == 6 and len(array(after)[0]) == 5


def test_memory_is_counted_for_each_content_alone(line: Asking) -> None:
    outcomes = line.ask(*[b"allocate 100000000"] * 5)
    assert all(isinstance(one, Prepared) for one in outcomes)


@pytest.mark.parametrize("content", [b"sleep", b"spin"])
def test_a_content_that_takes_too_long_is_given_up_and_its_process_killed(content: bytes) -> None:
    with asking() as line:
        (first,) = line.ask(b"who")
        line.readers._processes[0]._most_seconds = 0.5  # of this process: its successor has time
        slow, second = line.ask(content, b"who")
        assert reason(slow) == "takes too long to read (more than 0.5 s)"
        assert array(first) != array(second)
        assert line.readers.replaced == 1


def test_what_a_reading_loads_is_no_contents_memory_or_time() -> None:
    with asking(most_bytes=100 * MB, seconds=1.5, reading=Slow()) as line:
        assert array(line.ask(b"a")[0]).tolist() == [[ord("a")]]


def test_a_content_is_not_to_blame_for_a_process_that_died_before(line: Asking) -> None:
    (who,) = line.ask(b"who")
    os.kill(pid := int(array(who)[0]), signal.SIGKILL)
    os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    assert len(array(line.ask(b"fine")[0])[0]) == 4


def test_where_no_process_can_be_started_those_who_ask_hear_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*arguments: object, **settings: object) -> None:
        raise OSError(errno.EAGAIN, "resources are used up")

    with asking() as line:
        with monkeypatch.context() as patched:
            patched.setattr(subprocess, "Popen", full)
            (outcome,) = line.ask(b"x")
            assert isinstance(outcome, WorkError) and "resources are used up" in str(outcome)
        assert len(array(line.ask(b"fine")[0])[0]) == 4


def test_what_the_content_is_not_to_blame_for_is_no_reason(line: Asking) -> None:
    (outcome,) = line.ask(b"fail")
    assert isinstance(outcome, WorkError) and "fetch it again" in str(outcome)


def test_a_reading_that_cannot_be_built_refuses_its_own_contents_alone(line: Asking) -> None:
    other = Asking(line.readers, Unloadable())
    (bad,) = other.ask(b"x")
    assert isinstance(bad, WorkError) and "cannot be prepared (ValueError" in str(bad)
    assert len(array(line.ask(b"fine")[0])[0]) == 4


def test_several_readers_work_at_once_and_lines_take_turns(tmp_path: Path) -> None:
    with asking(2) as line:
        line.readers.warm()
        other = Asking(line.readers, Obedient())
        other.waiting.extend(enumerate([b"who"] * 2))
        pids = {int(array(one)[0]) for one in line.ask(*[b"meet " + bytes(tmp_path)] * 2)}
        assert len(pids) == 2
        assert len(other.outcomes) == 0  # it never called
        assert len(other.ask()) == 0


def test_readings_are_forgotten_with_their_lines(line: Asking) -> None:
    other = Asking(line.readers, Obedient())
    other.ask(b"x")
    line.readers.forget(other.known)
    assert len(array(line.ask(b"fine")[0])[0]) == 4


def test_a_reader_that_does_not_start_is_an_error_for_who_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.executable", "/bin/false")
    with asking() as line:
        (outcome,) = line.ask(b"x")
        assert isinstance(outcome, WorkError) and "did not start" in str(outcome)


def test_closing_does_not_wait_for_a_content_that_is_being_read() -> None:
    with asking(seconds=600) as line:
        line.ask(b"up")
        line.waiting.append((0, b"sleep"))
        line.outcomes.clear()
        line.readers.call(line)
        while line.waiting:
            time.sleep(0.01)
    assert isinstance(line.outcomes[0], WorkError) and "ask again" in str(line.outcomes[0])


def test_a_reader_imports_no_torch() -> None:
    code = "import graftwork.backbones.reader, sys; print({'torch', 'openvino'} & set(sys.modules))"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "set()"


def test_a_reader_inherits_no_open_file(tmp_path: Path) -> None:
    with (tmp_path / "lock").open("w") as file:
        os.set_inheritable(file.fileno(), True)
        with asking() as line:
            (outcome,) = line.ask(b"files")
    assert b"lock" not in array(outcome).tobytes() and b"memfd" in array(outcome).tobytes()


def test_readers_end_when_the_server_is_killed() -> None:
    code = (
        "import os, signal; from graftwork.serving.reading import Readers; readers = Readers(1, 10**9, 60)\n"
        "readers.warm(); thread = readers._threads[0].native_id\n"
        "print(open(f'/proc/self/task/{thread}/children').read(), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)"
    )
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended.returncode == -9 and ended.stdout.strip()
    until = time.monotonic() + 120
    while Path(f"/proc/{ended.stdout.strip()}").exists():
        assert time.monotonic() < until, "the reader lives on"
        time.sleep(0.02)
