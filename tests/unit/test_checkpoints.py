"""Checkpoints: whole or not there, refused where damaged, and gone on from to the very same bits."""

import errno
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from graftwork.errors import WorkError
from graftwork.records import Progress
from graftwork.training import Checkpoint, Checkpoints, Fed, Plan, Training, loop, train
from graftwork.training.checkpoints import optimiser_tensors, restore_optimiser
from graftwork.training.steps import Batch, Learner
from tiny_training import RICH, Convolving, logged, rich, same, values_and_codes

STEPS = 4 * 7


class Stopped(Exception):
    """What an interruption is in these tests."""


def stop_before(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the training that follows be interrupted before step number `step`."""
    real = Learner.step

    def counted(self: Learner, batch: Batch, share: float) -> float:
        if batch.number == step:
            raise Stopped
        return real(self, batch, share)

    monkeypatch.setattr(Learner, "step", counted)


# --- the file


def test_what_was_saved_is_loaded_bit_for_bit(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "new folder" / "a.safetensors")
    assert checkpoint.load() is None
    tensors = {"one": torch.randn(3, 4), "flag": torch.tensor(7), "half": torch.randn(5).bfloat16()}
    said = {"losses": [0.1, 1 / 3, float("nan")], "step": 3}
    checkpoint.save(said, tensors)
    found = checkpoint.load()
    assert found is not None
    assert repr(found[0]) == repr(said)
    assert all(torch.equal(found[1][name], value) for name, value in tensors.items())


def test_the_newer_state_replaces_the_older_and_nothing_else_is_left(tmp_path: Path) -> None:
    checkpoint = Checkpoint(tmp_path / "a.safetensors")
    (tmp_path / "a.unfinished").write_bytes(b"of a writer that was killed")
    for number in range(3):
        checkpoint.save({"number": number}, {"one": torch.ones(2)})
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]
    found = checkpoint.load()
    assert found is not None and found[0] == {"number": 2}


@pytest.mark.parametrize("how", ["cut short", "a byte changed", "emptied", "another format"])
def test_a_damaged_state_is_refused_in_one_line(tmp_path: Path, how: str) -> None:
    checkpoint = Checkpoint(tmp_path / "a.safetensors")
    checkpoint.save({"step": 1}, {"one": torch.arange(64.0)})
    content = bytearray(checkpoint.path.read_bytes())
    content[-100] ^= 1
    spoilt = {
        "cut short": content[:-9], "a byte changed": content, "emptied": b"", "another format": b"PK" * 99,
    }[how]  # fmt: skip
    checkpoint.path.write_bytes(spoilt)
    with pytest.raises(WorkError, match=r"is damaged \(.*remove it and start again without --resume") as said:
        checkpoint.load()
    assert "\n" not in str(said.value)


def test_the_state_of_another_network_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    Checkpoint(path).save({"step": 1}, {"network.other": torch.ones(2)})
    with pytest.raises(WorkError, match="of another network or version") as said:
        rich(path)
    assert "\n" not in str(said.value)


def test_a_full_disk_is_said_in_one_line_and_the_state_before_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint = Checkpoint(tmp_path / "a.safetensors")
    checkpoint.save({"step": 1}, {"one": torch.ones(2)})

    def full(handle: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(WorkError, match=r"No space left on device.*--resume"):
        checkpoint.save({"step": 2}, {"one": torch.ones(2)})
    found = checkpoint.load()
    assert found is not None and found[0] == {"step": 1}
    assert [file.name for file in tmp_path.iterdir()] == ["a.safetensors"]


def test_a_state_is_due_when_its_time_has_passed_since_the_last(tmp_path: Path) -> None:
    now = [100.0]
    checkpoint = Checkpoint(tmp_path / "a.safetensors", 40.0, lambda: now[0])
    assert not checkpoint.due
    now[0] += 40
    assert checkpoint.due
    checkpoint.save({}, {})
    assert not checkpoint.due


def test_with_steps_of_ten_seconds_no_minute_passes_without_a_state(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now, saved = [0.0], [0.0]
    real = Learner.step

    def slow(self: Learner, batch: Batch, share: float) -> float:
        now[0] += 10
        return real(self, batch, share)

    save = Checkpoint.save

    def noted(self: Checkpoint, *given: object) -> None:
        saved.append(now[0])
        save(self, *given)  # type: ignore[arg-type]

    monkeypatch.setattr(Learner, "step", slow)
    monkeypatch.setattr(Checkpoint, "save", noted)
    rich(tmp_path / "a", checkpoint=Checkpoint(tmp_path / "a", clock=lambda: now[0]))
    assert now[0] == 10 * STEPS
    assert max(np.diff(saved)) <= 60


def test_different_work_has_different_files(tmp_path: Path) -> None:
    kept = Checkpoints(tmp_path)
    one, same_work, other = kept.of({"a": 1, "b": 2}), kept.of({"b": 2, "a": 1}), kept.of({"a": 2, "b": 2})
    assert one.path == same_work.path != other.path


def test_the_optimisers_state_comes_back_in_its_parameters_own_layout() -> None:
    layer = nn.Conv2d(3, 5, 2)
    layer.weight.data = layer.weight.data.contiguous(memory_format=torch.channels_last)
    optimiser = torch.optim.AdamW(layer.parameters(), fused=True)
    layer(torch.randn(2, 3, 4, 4)).sum().backward()
    optimiser.step()
    kept = {name: value.clone().contiguous() for name, value in optimiser_tensors(optimiser).items()}
    other = torch.optim.AdamW(layer.parameters(), fused=True)
    restore_optimiser(other, kept)
    found = other.state[layer.weight]["exp_avg"]
    assert torch.equal(found, optimiser.state[layer.weight]["exp_avg"])
    assert found.stride() == layer.weight.stride() != found.contiguous().stride()


# --- going on


@pytest.fixture(scope="module")
def whole() -> tuple[list[np.ndarray], Training]:
    return rich(None)


@pytest.mark.parametrize("step", [0, 1, 3, 7, 8, 14, 21, 27])
def test_a_training_interrupted_before_any_step_ends_as_if_it_had_not_been(
    step: int, tmp_path: Path, whole: tuple[list[np.ndarray], Training], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        stop_before(step, patched)
        with pytest.raises(Stopped):
            rich(tmp_path / "a")
    found, done = rich(tmp_path / "a")
    assert same(found, whole[0])
    assert logged(done) == logged(whole[1])


@pytest.mark.parametrize("epoch", [0, 1, 3])
def test_a_training_interrupted_at_an_epochs_end_ends_as_if_it_had_not_been(
    epoch: int, tmp_path: Path, whole: tuple[list[np.ndarray], Training], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between its last step and the end of what is asked of held rows; epoch 0 is the start."""
    real, asked = loop.Run.asked, iter(range(99))

    def interrupted(self: loop.Run) -> tuple[float | None, float | None]:
        if next(asked) == epoch:
            raise Stopped
        return real(self)

    with monkeypatch.context() as patched:
        patched.setattr(loop.Run, "asked", interrupted)
        with pytest.raises(Stopped):
            rich(tmp_path / "a")
    found, done = rich(tmp_path / "a")
    assert same(found, whole[0])
    assert logged(done) == logged(whole[1])


def test_a_training_that_ended_is_not_made_again(
    tmp_path: Path, whole: tuple[list[np.ndarray], Training], monkeypatch: pytest.MonkeyPatch
) -> None:
    rich(tmp_path / "a", every_s=1e9)
    monkeypatch.setattr(Learner, "step", lambda *_: pytest.fail("a step was made"))
    found, done = rich(tmp_path / "a")
    assert same(found, whole[0])
    assert logged(done) == logged(whole[1])


def test_patience_goes_on_counting(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # the start is the best there is: each step makes it worse
    plan = replace(RICH, rate=5.0, epochs=9, patience=3, warmup=0.0, gradual=False)
    expected = rich(None, plan=plan)
    assert expected[1].stopped == "patience"
    with monkeypatch.context() as patched:
        stop_before(7 * (len(expected[1].epochs) - 2), patched)
        with pytest.raises(Stopped):
            rich(tmp_path / "a", plan=plan)
    found = rich(tmp_path / "a", plan=plan)
    assert same(found[0], expected[0])
    assert logged(found[1]) == logged(expected[1])


def test_patience_that_had_ended_is_not_taken_up_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = replace(RICH, rate=5.0, epochs=9, patience=3, warmup=0.0, gradual=False)
    expected = rich(None, plan=plan)
    assert expected[1].stopped == "patience"
    save = loop.Run._save

    def killed_at_the_end(self: loop.Run) -> None:
        if self.state.stopped is not None:
            raise Stopped
        save(self)

    with monkeypatch.context() as patched:
        patched.setattr(loop.Run, "_save", killed_at_the_end)
        with pytest.raises(Stopped):
            rich(tmp_path / "a", plan=plan)
    found = rich(tmp_path / "a", plan=plan)
    assert logged(found[1]) == logged(expected[1])
    assert same(found[0], expected[0])


def test_time_spent_before_an_interruption_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "a"
    with monkeypatch.context() as patched:
        stop_before(9, patched)
        with pytest.raises(Stopped):
            rich(path)
    found = Checkpoint(path).load()
    assert found is not None
    said, tensors = found
    Checkpoint(path).save({**said, "seconds": 1_000.0}, tensors)
    _, done = rich(path, plan=replace(RICH, seconds=900.0))
    assert done.stopped == "time"
    assert done.seconds > 1_000
    assert len(done.epochs) == 3  # the start, one whole epoch, and the one under way


def test_threads_and_pieces_are_those_of_the_start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, before = tmp_path / "a", torch.get_num_threads()
    with monkeypatch.context() as patched:
        stop_before(9, patched)
        with pytest.raises(Stopped):
            rich(path)
    found = Checkpoint(path).load()
    assert found is not None
    Checkpoint(path).save({**found[0], "threads": 3, "pieces": 4}, found[1])
    seen = []
    rich(path, notify=lambda step: seen.append(torch.get_num_threads()))
    assert set(seen) == {3}
    assert torch.get_num_threads() == before
    ended = Checkpoint(path).load()
    assert ended is not None and ended[0]["pieces"] == 4


def test_an_error_of_whoever_listens_loses_nothing(
    tmp_path: Path, whole: tuple[list[np.ndarray], Training], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "NOTIFY_S", 0.0)

    def hear(step: Progress) -> None:
        if step.done == 11:
            raise Stopped

    with pytest.raises(Stopped):
        rich(tmp_path / "a", notify=hear)
    assert same(rich(tmp_path / "a")[0], whole[0])


def test_without_held_rows_it_goes_on_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values, codes = values_and_codes()

    def run(path: Path | None) -> list[np.ndarray]:
        network = Convolving()
        plan = Plan(epochs=3, batch=16, optimiser="sgd", rate=0.05)
        checkpoint = None if path is None else Checkpoint(path, 0.0)
        train(network, Fed(lambda index: values[index]), codes, plan, checkpoint=checkpoint)
        return [value.detach().numpy().copy() for value in network.state_dict().values()]

    expected = run(None)
    with monkeypatch.context() as patched:
        stop_before(5, patched)
        with pytest.raises(Stopped):
            run(tmp_path / "a")
    assert same(run(tmp_path / "a"), expected)


CHILD = """
import sys
import time
from pathlib import Path
sys.path.insert(0, sys.argv[2])
from tiny_training import rich
from graftwork.training import steps
real = steps.Learner.step
def told(self, batch, share):
    while batch.number == 27:  # the last: it cannot end before it is killed
        time.sleep(1)
    loss = real(self, batch, share)
    print(batch.number, flush=True)
    return loss
steps.Learner.step = told
rich(Path(sys.argv[1]))
"""


def test_a_process_killed_at_random_moments_ends_with_the_same_bits(
    tmp_path: Path, whole: tuple[list[np.ndarray], Training]
) -> None:
    """Killed twice with SIGKILL, a random while after a random step; the third process ends it."""
    rng = np.random.default_rng()
    path, tests = tmp_path / "a", Path(__file__).parents[1]
    command = [sys.executable, "-W", "ignore", "-c", CHILD, str(path), str(tests)]
    for first, last in ((0, 12), (13, 26)):
        step, wait = int(rng.integers(first, last)), float(rng.uniform(0, 0.01))
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
            assert child.stdout is not None
            for line in child.stdout:
                if int(line) >= step:
                    break
            time.sleep(wait)
            child.send_signal(signal.SIGKILL)
        assert child.returncode == -signal.SIGKILL
    found, done = rich(path)
    assert same(found, whole[0]), f"killed last {wait:.4f} s after step {step}"
    assert logged(done) == logged(whole[1])
