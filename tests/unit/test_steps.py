"""One step, and each of its options, against an independent computation; and what stops it."""

import math
import re
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from graftwork import paths
from graftwork.backbones.examples import Tokens
from graftwork.errors import RequestError
from graftwork.records import Progress
from graftwork.training import Fed, Layers, Plan, dropout, loop, machine, train
from graftwork.training.dealing import dealt
from graftwork.training.feeding import ahead
from graftwork.training.losses import Loss
from graftwork.training.optimising import schedule
from graftwork.training.steps import Batch, Learner
from tiny_training import ROWS, Convolving, fed, plain, same, values_and_codes, weights

VALUES, CODES = values_and_codes()
BARE = Plan(epochs=2, batch=20, rate=0.01, decay=0.0, warmup=0.0, smoothing=0.0)


def trained(network: nn.Module, plan: Plan, **told: Any) -> nn.Module:
    train(network, fed(VALUES), CODES, plan, **told)
    return network


def learner_of(network: nn.Module, plan: Plan, examples: Any = None) -> Learner:
    loss = Loss(torch.from_numpy(CODES), torch.ones(ROWS), plan.smoothing)
    return Learner(network, examples or fed(VALUES), loss, None, plan, (), 10)


def by_hand(
    network: nn.Module, plan: Plan, optimiser: torch.optim.Optimizer, clip: float | None = None
) -> None:
    """The same training in the plainest of loops."""
    orders = [
        dealt(np.arange(ROWS), CODES, None, plan.batch, "plain", plan.seed, e + 1) for e in range(plan.epochs)
    ]
    steps = [index for order in orders for index in order]
    for number, index in enumerate(steps):
        for group in optimiser.param_groups:
            group["lr"] = plan.rate * 0.5 * (1 + math.cos(math.pi * number / len(steps)))
        optimiser.zero_grad()
        F.cross_entropy(network(VALUES[index]), torch.from_numpy(CODES[index])).backward()
        if clip is not None:
            nn.utils.clip_grad_norm_(network.parameters(), clip)
        optimiser.step()


def close(one: nn.Module, other: nn.Module, tolerance: float = 1e-5) -> bool:
    return all(np.allclose(a, b, atol=tolerance) for a, b in zip(weights(one), weights(other), strict=True))


def test_without_options_it_is_the_plainest_of_loops() -> None:
    expected = plain()
    by_hand(expected, BARE, torch.optim.AdamW(expected.parameters(), weight_decay=0.0))
    assert close(trained(plain(), BARE), expected)
    assert not close(plain(), expected, 1e-3)


def test_gradients_are_cut_to_the_stated_norm() -> None:
    plan = replace(BARE, optimiser="sgd", clip=0.05)
    expected = plain()
    by_hand(expected, plan, torch.optim.SGD(expected.parameters(), momentum=0.9, nesterov=True), 0.05)
    assert close(trained(plain(), plan), expected)
    assert not close(trained(plain(), replace(plan, clip=None)), expected)


def test_rate_rises_in_a_line_and_falls_along_a_cosine() -> None:
    assert schedule(0.05, 0.1) == pytest.approx(0.5)
    assert schedule(0.1, 0.1) == pytest.approx(1.0)
    assert schedule(0.55, 0.1) == pytest.approx(0.5)
    assert schedule(0.325, 0.1) == pytest.approx(0.5 * (1 + math.sqrt(0.5)))
    assert schedule(1.0, 0.1) == pytest.approx(0.0)
    assert schedule(1.7, 0.1) == pytest.approx(0.0)
    assert 0 < schedule(0.0, 0.1) < 0.02
    assert schedule(0.0, 0.0) == 1.0


def test_layers_learn_at_their_own_rates_and_others_not_at_all() -> None:
    network = plain()
    before = weights(network)
    layers = (Layers(frozenset({"0.weight"}), 0.1), Layers(frozenset({"2.weight"})))
    trained(network, replace(BARE, epochs=1, batch=ROWS), layers=layers)
    moved = [float(np.abs(a - b).max()) for a, b in zip(before, weights(network), strict=True)]
    # AdamW's first step is as long as the rate, whatever the gradient
    assert moved == pytest.approx([0.001, 0.0, 0.01, 0.0], rel=1e-2)


def test_decay_shrinks_matrices_and_spares_biases() -> None:
    network = plain()
    before = weights(network)
    learner = learner_of(network, replace(BARE, decay=0.5, rate=0.1))
    for group in learner.optimiser.param_groups:
        for parameter in group["params"]:
            parameter.grad = torch.zeros_like(parameter)
    learner.optimiser.step()
    for old, new in zip(before, weights(network), strict=True):
        assert np.allclose(new, old * (0.95 if old.ndim > 1 else 1.0))


def test_pull_takes_each_layer_back_at_its_own_rate() -> None:
    """One step of AdamW, then rate x pull of the way back; the head is let go."""
    layers = (
        Layers(frozenset({"0.weight", "0.bias"}), 0.5),
        Layers(frozenset({"2.weight", "2.bias"}), pulled=False),
    )
    plan = replace(BARE, epochs=1, batch=ROWS, rate=0.1)
    start, free, pulled = weights(plain()), plain(), plain()
    trained(free, plan, layers=layers)
    trained(pulled, replace(plan, pull=4.0), layers=layers)
    for place, (a, b, c) in enumerate(zip(start, weights(free), weights(pulled), strict=True)):
        expected = b + 0.5 * 0.1 * 4.0 * (a - b) if place < 2 else b
        assert np.allclose(c, expected, atol=1e-7)


def test_gradual_unfreezing_adds_a_group_of_layers_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    network = Convolving()
    seen: list[set[str]] = []
    real = Learner.step

    def told(self: Learner, batch: Batch, share: float) -> float:
        before = {name: value.detach().clone() for name, value in network.named_parameters()}
        loss = real(self, batch, share)
        seen.append(
            {name for name, value in network.named_parameters() if not torch.equal(value, before[name])}
        )
        return loss

    monkeypatch.setattr(Learner, "step", told)
    layers = network.layers()
    plan = Plan(epochs=4, batch=ROWS // 2, rate=0.01, warmup=0.0, gradual=True)
    train(network, fed(VALUES), CODES, plan, layers=layers)
    names = [set(group.names) for group in layers]
    stages = [names[2], names[2] | names[1], names[2] | names[1] | names[0]]
    assert seen == [stages[min(step // 2, 2)] for step in range(8)]


def test_mixup_mixes_rows_and_labels_alike() -> None:
    learner = learner_of(network := plain(), replace(BARE, mixup=0.4, smoothing=0.1))
    (batch,) = learner.batches([np.arange(12)], 5)
    found = learner.gradients(batch)
    (piece,) = batch.pieces
    assert piece.partner is not None
    share, partner = piece.share, piece.partner.numpy()
    values = share * VALUES[:12] + (1 - share) * VALUES[:12][partner]
    target = share * F.one_hot(torch.from_numpy(CODES[:12]), 3) + (1 - share) * F.one_hot(
        torch.from_numpy(CODES[:12][partner]), 3
    )
    expected = F.cross_entropy(network(values), target.float(), label_smoothing=0.1)
    assert found == pytest.approx(float(expected.detach()), rel=1e-5)
    assert sorted(partner) == list(range(12)) and 0 < share < 1


def test_mixup_of_token_numbers_is_refused() -> None:
    embedding = nn.Sequential(nn.EmbeddingBag(9, 3))
    examples = Fed(lambda index: torch.ones(len(index), 4, dtype=torch.int64))
    with pytest.raises(RequestError, match="token numbers"):
        train(embedding, examples, CODES, Plan(epochs=1, mixup=0.2))


# --- pieces, memory, threads


def test_memory_that_does_not_suffice_halves_the_pieces_and_the_step_is_the_same(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    expected = trained(plain(), BARE)
    real, sizes = Learner._loss, []

    def short(self: Learner, piece: Any) -> Tensor:
        if len(piece.index) > 6:
            raise torch.OutOfMemoryError("simulated")
        sizes.append(len(piece.index))
        return real(self, piece)

    monkeypatch.setattr(Learner, "_loss", short)
    network = plain()
    done = train(network, fed(VALUES), CODES, BARE)
    assert sizes == [5] * 4 * 3 * 2  # four pieces of five rows from the first of six steps on
    assert done.stopped == "epochs"
    assert close(network, expected)


def test_batches_made_ahead_follow_where_memory_has_fallen_short(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = learner_of(plain(), BARE)
    made = list(learner.batches([np.arange(start, start + 20) for start in (0, 20, 40)], 0))
    real, sizes = Learner._loss, []

    def short(self: Learner, piece: Any) -> Tensor:
        if len(piece.index) > 6:
            raise torch.OutOfMemoryError("simulated")
        sizes.append(len(piece.index))
        return real(self, piece)

    monkeypatch.setattr(Learner, "_loss", short)
    for batch in made:
        learner.learn(batch, 0.5)
    assert learner.pieces == 4
    assert sizes == [5] * 4 * 3


def test_memory_too_short_for_a_single_row_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def short(self: Learner, piece: Any) -> Tensor:
        raise torch.OutOfMemoryError("simulated")

    monkeypatch.setattr(Learner, "_loss", short)
    with pytest.raises(torch.OutOfMemoryError):
        trained(plain(), BARE)


def test_pieces_leave_batch_normalisation_two_rows_each() -> None:
    learner = learner_of(Convolving(), replace(BARE, pieces=99))
    (batch,) = learner.batches([np.arange(9)], 0)
    assert [len(piece.index) for piece in batch.pieces] == [3, 2, 2, 2]


def test_threads_are_tried_once_and_kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("GRAFT_HOME", str(tmp_path))
    monkeypatch.setattr(machine.engine, "cores", lambda: 4)
    monkeypatch.setattr(machine, "_others_s", lambda: 0.0)
    monkeypatch.setattr(machine, "_seconds", lambda count, run: {4: 1.0, 2: 0.95, 1: 0.5}[count])
    assert machine.threads("work", lambda: None) == 1
    monkeypatch.setattr(machine, "_seconds", lambda count, run: {4: 1.0, 2: 0.95, 1: 0.95}[count])
    assert machine.threads("work", lambda: None) == 1
    assert machine.threads("other work", lambda: None) == 4
    assert paths.home() == tmp_path


def test_threads_are_tried_in_turns_so_that_a_slow_spell_decides_nothing(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GRAFT_HOME", str(tmp_path))
    monkeypatch.setattr(machine.engine, "cores", lambda: 2)
    monkeypatch.setattr(machine, "_others_s", lambda: 0.0)
    for slow in (3, 4, 5, 6, 7):
        took = iter([3.0] * slow + [1.0] * 99)
        monkeypatch.setattr(machine, "_seconds", lambda *_, took=took: next(took))
        assert machine.threads(f"slow for {slow}", lambda: None) == 2


@pytest.mark.parametrize("others", [lambda: None, iter(range(10**6)).__next__])
def test_a_machine_that_is_busy_or_does_not_say_gives_all_its_cores(
    others: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GRAFT_HOME", str(tmp_path))
    monkeypatch.setattr(machine.engine, "cores", lambda: 2)
    monkeypatch.setattr(machine, "_others_s", others)
    monkeypatch.setattr(machine, "_seconds", lambda count, run: {2: 1.0, 1: 0.5}[count])
    assert machine.threads("work", lambda: None) == 2


@pytest.mark.skipif(not Path("/proc/stat").exists(), reason="the machine does not say how busy it is")
def test_what_others_do_does_not_count_ones_own_work() -> None:
    before, began = machine._others_s(), time.process_time()
    while time.process_time() - began < 0.3:
        pass
    after = machine._others_s()
    assert before is not None and after is not None
    # others may be at work meanwhile, on every core; this process's own 0.3 s are not among it
    assert after - before > -0.05


def test_what_a_network_keeps_of_a_question_can_be_learnt_with() -> None:
    class Keeping(nn.Module):
        """As rotary positions are: worked out in the first run, used again in later ones."""

        def __init__(self) -> None:
            super().__init__()
            self.layer, self.kept = plain(), torch.empty(0)

        def forward(self, values: Tensor) -> Tensor:
            if not len(self.kept):
                self.kept = torch.linspace(0.5, 1.5, 3).cos()
            logits: Tensor = self.layer(values) * self.kept
            return logits

    network = Keeping()
    held = np.arange(ROWS) % 3 == 0
    done = train(network, fed(VALUES), CODES, BARE, held=held, from_start=True)
    assert done.stopped == "epochs" and len(done.epochs) == 3


def test_trying_threads_changes_nothing_of_the_training(monkeypatch: pytest.MonkeyPatch) -> None:
    expected = trained(Convolving(), BARE)
    monkeypatch.setattr(machine, "WORTH_MEASURING", 1)
    monkeypatch.setattr(machine, "threads", lambda key, run: (run(), run(), torch.get_num_threads())[2])
    assert same(weights(trained(Convolving(), BARE)), weights(expected))


@pytest.mark.parametrize("waiting", [0, 1, 3, 50])
def test_what_is_made_ahead_comes_in_order(waiting: int) -> None:
    assert list(ahead(20, lambda k: k * k, waiting)) == [k * k for k in range(20)]


def test_an_error_made_ahead_comes_in_its_place() -> None:
    found = ahead(20, lambda k: 1 // (3 - k), 3)
    assert [next(found) for _ in range(3)] == [0, 0, 1]
    with pytest.raises(ZeroDivisionError):
        next(found)


def test_whole_texts_are_padded_to_their_batchs_longest_and_no_further() -> None:
    tokens = Tokens([[1, 2, 3], [4, 5], []], np.array([8, 8, 8]))
    ids, mask = tokens.tight().batch(np.array([1, 0, 2]))
    assert ids.tolist() == [[4, 5, 0], [1, 2, 3], [0, 0, 0]]
    assert mask.tolist() == [[1, 1, 0], [1, 1, 1], [0, 0, 0]]
    assert tokens.tight().batch(np.array([2]))[0].shape == (1, 1)
    assert tokens.batch(np.array([1]))[0].shape == (1, 8)


# --- dropout


@pytest.mark.parametrize("rate", [0.1, 0.5, 0.001])
def test_quick_dropout_drops_the_stated_share_and_keeps_the_mean(rate: float) -> None:
    values = torch.ones(1000, 1001, requires_grad=True)
    torch.manual_seed(0)
    with dropout.Quick():
        found = nn.Dropout(rate)(values)
    share = float((found == 0).float().mean())
    assert share == pytest.approx(rate, abs=5 * math.sqrt(rate / 1e6))
    assert torch.allclose(found[found != 0], torch.tensor(1 / (1 - rate)), rtol=1e-4)
    found.sum().backward()
    assert values.grad is not None and torch.equal(values.grad, found)


def test_quick_dropout_follows_the_seed_and_the_mode() -> None:
    values = torch.ones(50, 7)

    def dropped(seed: int, training: bool = True, rate: float = 0.5) -> Tensor:
        torch.manual_seed(seed)
        with dropout.Quick():
            return F.dropout(values, rate, training)

    assert torch.equal(dropped(1), dropped(1))
    assert not torch.equal(dropped(1), dropped(2))
    assert torch.equal(dropped(1, training=False), values)
    assert torch.equal(dropped(1, rate=0.0), values)
    assert torch.equal(dropped(1, rate=1.0), torch.zeros(50, 7))


# --- what stops it


class Spoilt(nn.Module):
    """A network whose logits become NaN, or whose gradient does, on its `at`-th pass in training mode."""

    def __init__(self, at: int, how: str) -> None:
        super().__init__()
        self.inner, self.at, self.how, self.passes = plain(), at, how, 0

    def forward(self, values: Tensor) -> Tensor:
        logits: Tensor = self.inner(values)
        self.passes += self.training
        if self.training and self.passes == self.at:
            # the root of 0 has a finite value and an infinite slope
            return logits * math.nan if self.how == "loss" else logits + (logits - logits).abs().sqrt()
        return logits


@pytest.mark.parametrize("how", ["loss", "gradient"])
@pytest.mark.parametrize("held", [True, False])
def test_no_number_stops_the_training_and_the_best_so_far_is_kept(how: str, held: bool) -> None:
    mask = np.arange(ROWS) % 4 == 0 if held else None
    network = Spoilt(8, how)
    plan = replace(BARE, epochs=5, batch=15, rate=0.05)
    done = train(network, fed(VALUES), CODES, plan, held=mask, from_start=True)
    each = 3 if held else 4
    assert done.stopped == "trouble"
    assert done.trouble is not None
    assert re.search(
        rf"{how}.* was (nan|inf).* at step 8 \(epoch {8 // each + (8 % each > 0)}\)", done.trouble
    )
    assert done.kept == 7 // each
    assert all(np.isfinite(one).all() for one in weights(network))


def test_trouble_in_the_first_epoch_leaves_the_weights_of_the_start() -> None:
    network = Spoilt(2, "loss")
    before = weights(network)
    done = train(network, fed(VALUES), CODES, BARE)
    assert done.kept == 0 and done.epochs == ()
    assert same(weights(network), before)


def test_single_rows_with_batch_normalisation_are_refused_unless_it_stands_still() -> None:
    with pytest.raises(RequestError, match="set batch=2 or more, or still=True") as said:
        trained(Convolving(), replace(BARE, batch=1))
    assert "\n" not in str(said.value)
    network = trained(Convolving(), replace(BARE, batch=1, still=True))
    assert all(np.isfinite(one).all() for one in weights(network))
    trained(plain(), replace(BARE, batch=1))


def test_still_and_frozen_normalisations_keep_their_statistics() -> None:
    still, frozen, learning = Convolving(), Convolving(), Convolving()
    trained(still, replace(BARE, still=True))
    trained(frozen, BARE, layers=frozen.layers()[1:])
    trained(learning, BARE)
    assert torch.equal(still.norm.running_mean, torch.zeros(4))
    assert torch.equal(frozen.norm.running_mean, torch.zeros(4))
    assert not torch.equal(learning.norm.running_mean, torch.zeros(4))


def test_time_that_binds_is_said_and_shown_as_progress(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = iter(range(10**6))
    monkeypatch.setattr(loop.time, "perf_counter", lambda: float(next(clock)))
    said: list[Progress] = []
    done = train(plain(), fed(VALUES), CODES, replace(BARE, epochs=500, seconds=200.0), notify=said.append)
    assert done.stopped == "time"
    assert 1 < len(done.epochs) < 100
    shares = [step.done / step.total for step in said if step.total]
    assert shares == sorted(shares) and 0.8 < shares[-1] < 1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_a_gpu_it_learns_and_says_how_much_memory_it_took() -> None:
    network = Convolving()
    done = train(network, fed(VALUES), CODES, replace(BARE, epochs=30, rate=0.02, precision="auto"))
    assert done.memory > 0
    assert next(network.parameters()).device.type == "cuda"
    assert done.epochs[-1].training < done.epochs[0].training
