"""The torch runtime runs rows of one network on several threads at once: none may see another's."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

import tiny
from graftwork import sources
from graftwork.backbones import cutting
from graftwork.backbones.loading import load_encoder
from graftwork.backbones.pooling import HeldNorm, LayersNetwork, TextNetwork, held_alone

THREADS, TIMES = 4, 40


@pytest.fixture
def network(tmp_path: Path) -> TextNetwork:
    return TextNetwork(load_encoder(sources.find(str(tiny.bert(tmp_path / "bert")))), "mean", True)


def texts(count: int) -> list[tuple[Tensor, Tensor]]:
    ids = torch.randint(4, 20, (count, 1, 16), generator=torch.Generator().manual_seed(0))
    return [(row, torch.ones_like(row)) for row in ids]


def same_on_threads(run: nn.Module, rows: list[tuple[Tensor, ...]]) -> None:
    def one(row: tuple[Tensor, ...]) -> Tensor:
        with torch.inference_mode():
            found: Tensor = run(*row)
        return found

    alone = [one(row) for row in rows]
    with ThreadPoolExecutor(THREADS) as pool:
        for row, found in zip(alone, pool.map(one, rows), strict=True):
            torch.testing.assert_close(found, row)


def test_layers_of_rows_that_run_at_once_stay_apart(network: TextNetwork) -> None:
    same_on_threads(LayersNetwork(network, cutting.blocks(network)), texts(TIMES))


def test_what_enters_a_block_is_the_threads_own(network: TextNetwork) -> None:
    same_on_threads(cutting.Prefix(network, cutting.blocks(network)[-1]), texts(TIMES))


class Held(nn.Module):
    """One norm over time, of as many samples as each row says."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = HeldNorm(nn.GroupNorm(8, 8), 1, 1)

    def forward(self, frames: Tensor, ends: Tensor) -> Tensor:
        with held_alone(self, ends):
            normed: Tensor = self.norm(self.norm(self.norm(frames)))
        return normed


def test_padding_is_left_out_by_each_threads_own_lengths() -> None:
    frames = torch.randn(TIMES, 1, 8, 4_000, generator=torch.Generator().manual_seed(0))
    same_on_threads(Held(), [(row, torch.tensor([400 + 90 * i])) for i, row in enumerate(frames)])
