"""Laws of training: pieces make no difference, interruptions make none, seeds decide."""

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from graftwork.training import Checkpoint, Plan, train
from graftwork.training.losses import Loss
from graftwork.training.steps import Batch, Learner
from tiny_training import RICH, ROWS, fed, logged, plain, rich, same, values_and_codes

VALUES, CODES = values_and_codes()
WHOLE = rich(None)


@settings(max_examples=30, deadline=None)
@given(
    rows=st.integers(1, 40),
    pieces=st.integers(2, 12),
    smoothing=st.sampled_from([0.0, 0.2]),
    seed=st.integers(0, 99),
)
def test_a_batch_in_pieces_gives_the_gradient_of_the_whole(
    rows: int, pieces: int, smoothing: float, seed: int
) -> None:
    """Whatever the rows weigh, some of them nothing."""
    importance = np.random.default_rng(seed).choice([0.0, 0.5, 2.0], ROWS)
    gradients = []
    for count in (1, pieces):
        network = plain(seed)
        loss = Loss(torch.from_numpy(CODES), torch.from_numpy(importance).float(), smoothing)
        learner = Learner(network, fed(VALUES), loss, None, Plan(pieces=count, seed=seed), (), 1)
        (batch,) = learner.batches([np.arange(rows)], 0)
        assert len(batch.pieces) == min(count, rows)
        value = learner.gradients(batch)
        gradients.append(
            [np.array([value]), *(one.grad.numpy() for one in network.parameters() if one.grad is not None)]
        )
    for one, other in zip(*gradients, strict=True):
        assert np.allclose(one, other, atol=1e-6)


class Stopped(Exception):
    """What an interruption is here."""


@settings(max_examples=8, deadline=None)
@given(steps=st.lists(st.integers(0, 27), min_size=1, max_size=4), every=st.integers(1, 6))
def test_however_often_it_is_interrupted_a_training_ends_with_the_same_bits(
    steps: list[int], every: int
) -> None:
    """every: steps between checkpoints, so that some are made again."""
    real = Learner.step
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patched:
        clock = [0.0]
        for stop in [*steps, None]:

            def counted(self: Learner, batch: Batch, share: float, stop: int | None = stop) -> float:
                if batch.number == stop:
                    raise Stopped
                clock[0] += 1
                return real(self, batch, share)

            patched.setattr(Learner, "step", counted)

            checkpoint = Checkpoint(Path(folder) / "a", every, lambda: clock[0])
            try:
                found, done = rich(checkpoint.path, checkpoint=checkpoint)
            except Stopped:
                continue
    assert same(found, WHOLE[0])
    assert logged(done) == logged(WHOLE[1])


@settings(max_examples=6, deadline=None)
@given(seed=st.integers(0, 10**9))
def test_the_same_seed_gives_the_same_bits(seed: int) -> None:
    plan = replace(RICH, seed=seed, epochs=2)
    one, other = rich(None, plan=plan), rich(None, plan=plan)
    assert same(one[0], other[0])
    assert logged(one[1]) == logged(other[1])


def test_the_callers_random_numbers_go_on_undisturbed() -> None:
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    network = plain(1)
    torch.manual_seed(1)
    train(network, fed(VALUES, 0.1), CODES, Plan(epochs=1))
    assert torch.equal(torch.rand(3), expected)
