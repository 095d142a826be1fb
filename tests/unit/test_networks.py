"""Networks: described by their config alone, folding changes nothing, padding is not seen."""

import json

import pytest
import torch

from graftwork.errors import ArtefactError
from graftwork.networks import (
    Block,
    CompactConfig,
    CompactNet,
    SubwordConfig,
    SubwordNet,
    compact_config,
    folded,
)

SMALL = CompactConfig(1, 16, 8, 1, (Block(8, 1, 2), Block(16, 2, 2)), 24, cells=2)


@pytest.mark.parametrize("size", [16, 32, 64, 128])
@pytest.mark.parametrize("channels", [1, 3])
def test_default_networks_take_pictures_of_16_to_128_pixels(channels: int, size: int) -> None:
    network = CompactNet(compact_config(channels, size), classes=5).eval()
    pictures = torch.rand(2, channels, size, size)
    assert network(pictures).shape == (2, 5)
    assert network.features(pictures).shape == (2, 192)
    parameters = sum(value.numel() for value in network.parameters())
    assert 50_000 < parameters < 400_000


def test_config_survives_json() -> None:
    assert CompactConfig.from_json(json.loads(json.dumps(SMALL.to_json()))) == SMALL
    config = SubwordConfig(buckets=64, width=8)
    assert SubwordConfig.from_json(json.loads(json.dumps(config.to_json()))) == config


@pytest.mark.parametrize(
    "broken", [{}, {"blocks": []}, {**SMALL.to_json(), "depth": 3}, {"blocks": [{"w": 1}]}]
)
def test_strange_config_is_refused_with_a_next_step(broken: dict[str, object]) -> None:
    with pytest.raises(ArtefactError, match="Make the source"):
        CompactConfig.from_json(broken)
    with pytest.raises(ArtefactError, match="subword"):
        SubwordConfig.from_json({"colour": 1})


def test_folding_keeps_the_features_and_removes_every_normalisation() -> None:
    torch.manual_seed(0)
    network = CompactNet(SMALL, classes=3)
    with torch.no_grad():
        for _ in range(3):  # running statistics unlike their start
            network(torch.rand(8, 1, 16, 16))
    network.eval()
    before = network.trunk(torch.full((1, 1, 16, 16), 0.3))
    quick = folded(network.trunk)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in quick.modules())
    assert torch.allclose(quick(torch.full((1, 1, 16, 16), 0.3)), before, atol=1e-5)
    # the network itself was left as it was
    assert any(isinstance(module, torch.nn.BatchNorm2d) for module in network.trunk.modules())


def test_learned_pooling_starts_as_the_mean() -> None:
    torch.manual_seed(0)
    network = CompactNet(SMALL, classes=2).eval()
    maps = torch.rand(2, 24, 8, 8)
    assert torch.allclose(network.pool(maps), maps.mean((2, 3)), atol=1e-6)


def test_text_features_do_not_know_how_far_a_text_was_padded() -> None:
    torch.manual_seed(0)
    network = SubwordNet(SubwordConfig(buckets=50, width=8), classes=2).eval()
    tokens = torch.randint(1, 50, (1, 1, 4))  # so few that some feature's strongest is negative
    longer = torch.zeros(1, 12, 4, dtype=torch.int64)
    longer[:, :1] = tokens
    assert (network.features(tokens) < 0).any()
    assert torch.allclose(network.features(tokens), network.features(longer), atol=1e-6)


def test_text_without_a_token_gives_finite_features() -> None:
    network = SubwordNet(SubwordConfig(buckets=50, width=8), classes=2).eval()
    assert torch.isfinite(network.features(torch.zeros(1, 3, 4, dtype=torch.int64))).all()
