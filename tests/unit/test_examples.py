"""Examples: the same rows give the same batch, however they are asked for."""

from pathlib import Path

import numpy as np
import torch

from graftwork.backbones.examples import Activations, Pictures, Rest, Sounds, Tokens

RNG = np.random.default_rng(0)


def alike(views: int = 1) -> Activations:
    matrices = [[RNG.normal(size=(6, 5)).astype(np.float32)] for _ in range(views)]
    return Activations(matrices, np.zeros(6, np.int64), np.arange(6))


def test_rows_of_one_shape_are_one_lookup_that_may_be_a_map(tmp_path: Path) -> None:
    matrix = RNG.normal(size=(6, 5)).astype(np.float32)
    np.save(tmp_path / "hidden.npy", matrix)
    mapped = np.load(tmp_path / "hidden.npy", mmap_mode="r")
    assert isinstance(mapped, np.memmap)
    examples = Activations([[mapped]], np.zeros(6, np.int64), np.array([5, 4, 3, 2, 1, 0]))
    (hidden,) = examples.batch(np.array([0, 5, 0]))
    assert np.array_equal(hidden.numpy(), matrix[[5, 0, 5]])
    hidden += 1  # the caller's own: what is kept stays as it was
    assert np.array_equal(mapped, matrix)


def test_without_a_generator_every_row_is_plain_and_with_one_each_draws_its_view() -> None:
    examples = alike(views=3)
    index = np.arange(6)
    assert np.array_equal(examples.batch(index)[0].numpy(), examples.views[0][0])
    drawn = [examples.batch(index, torch.Generator().manual_seed(seed))[0].numpy() for seed in (0, 0, 1)]
    assert np.array_equal(drawn[0], drawn[1]) and not np.array_equal(drawn[0], drawn[2])
    stacked = np.stack([view[0] for view in examples.views])
    chosen = [int(np.flatnonzero((stacked[:, i] == drawn[0][i]).all(1))[0]) for i in range(6)]
    assert len(set(chosen)) > 1


def test_rows_of_several_lengths_are_as_long_as_the_longest_of_the_batch() -> None:
    tokens = Tokens([[1, 2], [3] * 12, [4] * 8, [5] * 5], np.array([8, 16, 8, 8]))
    short, long = (RNG.normal(size=size).astype(np.float32) for size in ((3, 8 * 2), (1, 16 * 2)))
    examples = Activations([[short, long]], np.array([0, 1, 0, 0]), np.array([0, 0, 1, 2]), tokens, 2)
    hidden, ids, mask = examples.batch(np.array([2, 1, 0]))
    assert hidden.shape == (3, 32) and ids.shape == mask.shape == (3, 16)
    assert np.array_equal(hidden[0, :16], short[1]) and np.array_equal(hidden[1], long[0])
    assert not hidden[0, 16:].any() and not hidden[2, 16:].any()
    hidden, ids, _ = examples.batch(np.array([3, 0]))
    assert hidden.shape == (2, 16) and np.array_equal(hidden.numpy(), short[[2, 0]]) and ids.shape == (2, 8)
    assert np.array_equal(examples.lengths, tokens.lengths)


def test_lengths_between_the_kept_ones_cut_the_filling_off() -> None:
    sounds = Sounds([(np.zeros((1, n), np.float32),) for n in (10, 30)], np.array([3, 5]))
    kept = RNG.normal(size=(2, 8 * 2)).astype(np.float32)
    examples = Activations([[kept]], np.zeros(2, np.int64), np.arange(2), sounds, 2)
    hidden, sound, steps = examples.batch(np.array([0]))
    assert hidden.shape == (1, 6) and sound.shape == (1, 10) and steps.tolist() == [3]
    hidden, sound, _ = examples.batch(np.array([0, 1]))
    assert hidden.shape == (2, 10) and sound.shape == (2, 30)
    assert np.array_equal(hidden.numpy(), kept[:, :10])


def test_sounds_of_one_shape_are_stacked_and_others_followed_by_silence() -> None:
    spectra = [(RNG.normal(size=(1, 4, 6)).astype(np.float32), np.array([n])) for n in (3, 5)]
    energies, steps = Sounds(spectra).batch(np.array([1, 0]))
    assert energies.shape == (2, 4, 6) and steps.tolist() == [5, 3]
    samples = [(np.ones((1, n), np.float32),) for n in (4, 9)]
    sound, steps = Sounds(samples, np.array([1, 2])).batch(np.array([0, 1]))
    assert sound.sum(1).tolist() == [4, 9] and sound.shape == (2, 9) and steps.tolist() == [1, 2]


def test_the_rest_leaves_the_first_inputs_out() -> None:
    spectra = [(np.zeros((1, 4, 6), np.float32), np.array([n])) for n in (3, 5)]
    (steps,) = Rest(Sounds(spectra), 1).batch(np.array([1]))
    assert steps.tolist() == [5]


def test_pictures_are_floats_of_their_own() -> None:
    pixels = RNG.integers(0, 256, (3, 4, 4, 3), dtype=np.uint8)
    (batch,) = Pictures(pixels).batch(np.array([2, 0]))
    assert batch.dtype == torch.float32 and np.array_equal(batch.numpy(), pixels[[2, 0]])
