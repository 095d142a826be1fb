"""The training loop and the distortions: repeatable, stoppable, and never looking at held rows."""

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from graftwork.records import Progress
from graftwork.training import AUGMENTATIONS, Augmentation, Plan, train, waves
from tiny_training import fed

ROWS = 120


@pytest.fixture
def points() -> tuple[Tensor, np.ndarray]:
    rng = np.random.default_rng(0)
    codes = rng.integers(0, 2, ROWS)
    values = rng.normal(size=(ROWS, 4)) + 2.0 * codes[:, None]
    return torch.from_numpy(values).float(), codes.astype(np.int64)


def network(seed: int = 0) -> nn.Module:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))


def weights(net: nn.Module) -> list[np.ndarray]:
    return [value.detach().numpy().copy() for value in net.parameters()]


@pytest.mark.parametrize("optimiser", ["adamw", "sgd"])
def test_training_learns(points: tuple[Tensor, np.ndarray], optimiser: str) -> None:
    values, codes = points
    net = network()
    said: list[Progress] = []
    plan = Plan(epochs=20, batch=16, rate=0.02, optimiser=optimiser)  # type: ignore[arg-type]
    training = train(net, fed(values), codes, plan, notify=said.append)
    assert (net(values).argmax(1).numpy() == codes).mean() > 0.95
    assert training.epochs[-1].training < training.epochs[0].training
    assert said[-1].done == said[-1].total == 20 * 8
    assert said[-1].note.startswith("epoch 20 of 20, loss ") and said[-1].note.endswith(" rows/s")
    assert training.stopped == "epochs" and not net.training


def test_same_seed_gives_the_same_weights_and_another_seed_others(points: tuple[Tensor, np.ndarray]) -> None:
    values, codes = points
    found = []
    for seed in (1, 1, 2):
        net = network()
        train(net, fed(values, noise=0.1), codes, Plan(epochs=3, seed=seed))
        found.append(weights(net))
    assert all(np.array_equal(a, b) for a, b in zip(found[0], found[1], strict=True))
    assert not all(np.array_equal(a, b) for a, b in zip(found[0], found[2], strict=True))


def test_held_rows_are_never_learnt_from(points: tuple[Tensor, np.ndarray]) -> None:
    values, codes = points
    held = np.zeros(ROWS, dtype=bool)
    held[::4] = True
    spoilt = codes.copy()
    spoilt[held] = 1 - spoilt[held]
    found = []
    for labels in (codes, spoilt):
        net = network()
        # no held-out loss may choose between epochs here: one epoch only
        train(net, fed(values), labels, Plan(epochs=1, batch=16), held=held)
        found.append(weights(net))
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


def test_weights_of_the_best_held_epoch_are_kept(points: tuple[Tensor, np.ndarray]) -> None:
    values, codes = points
    held = np.zeros(ROWS, dtype=bool)
    held[::2] = True
    wrong = codes.copy()
    wrong[held] = 1 - wrong[held]  # the better it learns, the worse it does on these
    training = train(net := network(), fed(values), wrong, Plan(epochs=40, rate=0.02, patience=5), held=held)
    assert training.stopped == "patience"
    assert len(training.epochs) == training.kept + 5
    best = min(training.epochs, key=lambda epoch: epoch.held or 0)
    assert best.number == training.kept
    with torch.inference_mode():
        loss = nn.functional.cross_entropy(net(values)[held], torch.from_numpy(wrong[held]))
    assert float(loss) == pytest.approx(best.held, rel=1e-5)


def test_time_ends_training_with_something_learnt(points: tuple[Tensor, np.ndarray]) -> None:
    values, codes = points
    training = train(network(), fed(values), codes, Plan(epochs=100_000, seconds=0.2))
    assert training.stopped == "time"
    assert 1 <= len(training.epochs) < 100_000


def test_a_row_of_no_weight_teaches_nothing(points: tuple[Tensor, np.ndarray]) -> None:
    values, codes = points
    weight = np.ones(ROWS)
    weight[::3] = 0
    spoilt = codes.copy()
    spoilt[::3] = 1 - spoilt[::3]
    found = []
    for labels in (codes, spoilt):
        net = network()
        train(net, fed(values), labels, Plan(epochs=2, batch=32), weights=weight)
        found.append(weights(net))
    assert all(np.array_equal(a, b) for a, b in zip(*found, strict=True))


@pytest.mark.parametrize("amount", sorted({amount for amount, _ in AUGMENTATIONS} - {"none"}))
@pytest.mark.parametrize("frame", ["whole", "ink", "sound"])
def test_distortions_keep_shape_and_range_and_follow_the_seed(amount: str, frame: str) -> None:
    augment = AUGMENTATIONS[amount, frame]
    assert augment is not None
    pictures = torch.rand(6, 3, 20, 20, generator=torch.Generator().manual_seed(5))
    first, again, other = (augment(pictures, torch.Generator().manual_seed(seed)) for seed in (0, 0, 1))
    assert first.shape == pictures.shape
    assert 0 <= first.min() and first.max() <= 1
    assert torch.equal(first, again) and not torch.equal(first, other)
    assert not torch.allclose(first, pictures, atol=0.05)


def test_no_distortion_asked_for_is_none() -> None:
    pictures = torch.rand(3, 1, 12, 12)
    assert torch.allclose(Augmentation()(pictures, torch.Generator().manual_seed(0)), pictures, atol=1e-5)


def test_mirror_turns_left_and_right_for_some() -> None:
    pictures = torch.rand(40, 1, 8, 8)
    turned = Augmentation(mirror=True)(pictures, torch.Generator().manual_seed(0))
    same = [torch.allclose(a, b, atol=1e-5) for a, b in zip(turned, pictures, strict=True)]
    flipped = [torch.allclose(a, b.flip(2), atol=1e-5) for a, b in zip(turned, pictures, strict=True)]
    assert 10 <= sum(same) <= 30
    assert sum(same) + sum(flipped) == 40


def test_elastic_waves_have_the_stated_size() -> None:
    shifts = waves(400, 32, 0.05, torch.Generator().manual_seed(0))
    # half, because the grid runs over two units a side
    assert float(shifts.std()) / 2 == pytest.approx(0.05, rel=0.15)


def test_erasing_blanks_a_rectangle_with_the_mean() -> None:
    pictures = torch.rand(20, 1, 16, 16)
    erased = Augmentation(erase=1.0)(pictures, torch.Generator().manual_seed(0))
    changed = (erased - pictures).abs() > 1e-4
    assert all(0 < int(one.sum()) <= 0.4 * 0.4 * 256 + 40 for one in changed)
    one = changed[0, 0]
    assert torch.allclose(erased[0, 0][one], pictures[0].mean().expand(int(one.sum())), atol=1e-5)
