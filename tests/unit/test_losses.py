"""What is minimised, each against the same computed by hand in float64."""

import numpy as np
import pytest
import torch
from scipy import stats

from graftwork.errors import RequestError
from graftwork.training.losses import Loss, mix, mixing_share

RNG = np.random.default_rng(0)
LOGITS, CODES = RNG.normal(size=(8, 3)), np.arange(8) % 3
IMPORTANCE = RNG.uniform(0, 2, 8)


def by_hand(
    logits: np.ndarray, codes: np.ndarray, importance: np.ndarray, smoothing: float, offsets: np.ndarray
) -> float:
    """Weighted mean cross-entropy to (1 - smoothing) of the label and smoothing / classes of each."""
    shifted = logits + offsets
    log_p = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    target = (1 - smoothing) * np.eye(3)[codes] + smoothing / 3
    return float((importance * -(target * log_p).sum(1)).sum() / importance.sum())


def loss_of(smoothing: float = 0.0, offsets: np.ndarray | None = None) -> Loss:
    shift = None if offsets is None else torch.from_numpy(offsets).float()
    return Loss(torch.from_numpy(CODES), torch.from_numpy(IMPORTANCE).float(), smoothing, shift)


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.5])
@pytest.mark.parametrize("offsets", [None, np.log([0.7, 0.2, 0.1])])
def test_loss_is_the_weighted_smoothed_shifted_cross_entropy(
    smoothing: float, offsets: np.ndarray | None
) -> None:
    index = np.array([5, 0, 3])
    found = loss_of(smoothing, offsets)(torch.from_numpy(LOGITS[index]), torch.from_numpy(index))
    shift = np.zeros(3) if offsets is None else offsets
    expected = by_hand(LOGITS[index], CODES[index], IMPORTANCE[index], smoothing, shift)
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_loss_of_logits_in_half_precision_is_computed_in_full() -> None:
    logits = (100 * torch.from_numpy(LOGITS)).bfloat16()
    found = loss_of()(logits, torch.arange(8))
    expected = by_hand(logits.double().numpy(), CODES, IMPORTANCE, 0.0, np.zeros(3))
    assert found.dtype == torch.float32
    assert float(found) == pytest.approx(expected, rel=1e-5)


def test_mixed_loss_is_the_mean_of_both_labels_losses() -> None:
    index, other = np.array([0, 1, 4]), np.array([4, 0, 1])
    found = loss_of(0.1).mixed(
        torch.from_numpy(LOGITS[index]), torch.from_numpy(index), torch.from_numpy(other), 0.3
    )
    one = by_hand(LOGITS[index], CODES[index], IMPORTANCE[index], 0.1, np.zeros(3))
    two = by_hand(LOGITS[index], CODES[other], IMPORTANCE[other], 0.1, np.zeros(3))
    assert float(found) == pytest.approx(0.3 * one + 0.7 * two, rel=1e-5)


def test_rows_of_no_weight_at_all_have_no_loss() -> None:
    loss = Loss(torch.zeros(2, dtype=torch.int64), torch.zeros(2), 0.0)
    assert float(loss(torch.ones(2, 3), torch.arange(2))) == 0.0


def test_rows_are_mixed_and_a_mask_counts_where_either_does() -> None:
    hidden = torch.tensor([[1.0, 1.0, 0.0], [3.0, 3.0, 3.0]])
    mask = torch.tensor([[1, 1, 0], [1, 1, 1]])
    mixed, both = mix((hidden, mask), 0.25, torch.tensor([1, 0]))
    assert torch.equal(mixed, torch.tensor([[2.5, 2.5, 2.25], [1.5, 1.5, 0.75]]))
    assert torch.equal(both, torch.ones(2, 3, dtype=torch.int64))


def test_token_numbers_are_not_mixed() -> None:
    with pytest.raises(RequestError, match="token numbers; leave mixup out") as said:
        mix((torch.ones(2, 3, dtype=torch.int64),), 0.5, torch.tensor([1, 0]))
    assert "\n" not in str(said.value)


def test_mixing_shares_are_drawn_from_beta() -> None:
    generator = torch.Generator().manual_seed(0)
    drawn = [mixing_share(0.4, generator) for _ in range(1_500)]
    assert stats.kstest(drawn, stats.beta(0.4, 0.4).cdf).pvalue > 1e-3
