"""What everything tunable promises, run over each of them."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import tiny
import tiny_audio
from graftwork.backbones import open_backbone, restore
from graftwork.backbones.base import Backbone, Cut, Tunable
from graftwork.errors import RequestError
from graftwork.rows import Rows
from graftwork.sources import find
from graftwork.store import Stored

SOURCES: dict[str, Callable[[Path], Path]] = {
    "resnet": tiny.resnet,
    "vit": tiny.vit,
    "bert": tiny.bert,
    "wav2vec2": lambda place: tiny_audio.waves(place, "wav2vec2"),
    "ast": tiny_audio.ast,
    "whisper": tiny_audio.whisper,
}
COMPILED = ("resnet", "bert")
"""These run on the fastest path, the others on torch, which needs no conversion."""
COUNT = 18
INDEX = np.array([3, 17, 5])


class Doubled:
    """A view that changes every input by what its content says."""

    key: ClassVar[dict[str, str]] = {"view": "doubled"}

    def __call__(self, inputs: tuple[NDArray[Any], ...], digest: bytes) -> tuple[NDArray[Any], ...]:
        first, *others = inputs
        return (np.flip(first, 1).copy() if digest[0] % 2 else first, *others)


@dataclass
class Case:
    backbone: Any
    rows: Rows

    @property
    def exact(self) -> NDArray[np.float32]:
        """Features of the rows at INDEX in float32 torch, by themselves."""
        network, found = self.backbone.network(), []
        for i in INDEX:
            with torch.no_grad():
                found.append(network(*self.backbone.examples(self.rows).batch(np.array([i]))).numpy()[0])
        return np.stack(found)


def rows_of(kind: str) -> Rows:
    if kind == "audio":
        return tiny_audio.rows(*np.linspace(0.2, 1.2, COUNT))
    return tiny.image_rows(COUNT) if kind == "image" else tiny.text_rows(COUNT)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    place = tmp_path_factory.mktemp("models")
    return {name: build(place / name) for name, build in SOURCES.items()}


@pytest.fixture(params=[*SOURCES, "glyphs", "keras"], scope="module")
def case(request: pytest.FixtureRequest, folders: dict[str, Path]) -> Case:
    name: str = request.param
    if name != "keras":
        source = find(str(folders.get(name, name)))
        rows = rows_of(source.kind)
        return Case(open_backbone(source, rows, runtime=None if name in COMPILED else "torch"), rows)
    if find_spec("keras") is None:
        pytest.skip("the extra keras is not installed")
    return Case(small_keras(), tiny.image_rows(COUNT))


def small_keras() -> Backbone:
    """MobileNet at 32 pixels: the smallest application, at the smallest size it takes."""
    from graftwork.backbones import keras as family
    from graftwork.sources.source import Source

    class Small(family.Application):
        def _build(self) -> Any:
            from graftwork.backbones.keras_network import KerasNetwork, blocks

            model = self._model()
            rng = np.random.default_rng(0)
            for weight in model.weights:
                if len(weight.shape) > 1:
                    weight.assign(rng.normal(size=weight.shape) * np.sqrt(2 / np.prod(weight.shape[:-1])))
            return KerasNetwork(family.library(), model, self._prepared, blocks(model)).eval()

    options = {"architecture": "MobileNet", "size": 32, "scaled_twice": False}
    source = Source("keras:MobileNet", "image", "keras", Path(), {"w": "0"}, ("w",), "local", options=options)
    framing = {"height": 32, "width": 32, "resize": [32, 32], "resample": 2, "fit": False, "fill": [0, 0, 0]}
    bare = Small(source, {"pooling": "avg", "preprocessing": {"framing": framing}})
    return Small(source, bare.settled(None, "torch"))


def stored(place: Path) -> Callable[[Backbone], Backbone]:
    return lambda other: Stored(other, place)


def asked(cut: Cut, index: NDArray[np.int64] = INDEX) -> NDArray[np.float32]:
    with torch.no_grad():
        found: NDArray[np.float32] = cut.network(*cut.examples.batch(index)).numpy()
    return found


def far(found: NDArray[np.float32], wanted: NDArray[np.float32]) -> float:
    """The largest difference, relative to the features' size."""
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


def test_the_network_gives_the_features_of_rows_together_and_alone(case: Case) -> None:
    assert isinstance(case.backbone, Tunable) and case.backbone.frame in ("whole", "ink", "sound")
    network = case.backbone.network()
    assert not network.training
    with torch.no_grad():
        together = network(*case.backbone.examples(case.rows).batch(INDEX)).numpy()
    assert together.shape == (3, case.backbone.width) and together.dtype == np.float32
    assert far(together, case.exact) < 1e-5
    assert far(together, case.backbone.features(case.rows).matrix[INDEX]) < 0.05  # its path may be bfloat16


def test_the_network_is_the_callers_own(case: Case) -> None:
    first, second = case.backbone.network(), case.backbone.network()
    for value in first.parameters():
        value.data.zero_()
    assert any(value.any() for value in second.parameters())


def test_cut_anywhere_it_gives_the_whole_networks_features(case: Case, tmp_path: Path) -> None:
    names, exact = case.backbone.blocks(), case.exact
    assert names and len(set(names)) == len(names)
    for block in sorted({names[0], names[len(names) // 2], names[-1]}):
        cut = case.backbone.cut(block, case.rows, [None], stored(tmp_path))
        assert cut.block == block and far(asked(cut), exact) < 0.02, block
        fresh = case.backbone.cut(block, case.rows, [None], lambda other: other)
        assert torch.equal(fresh.examples.batch(INDEX)[0], cut.examples.batch(INDEX)[0])


def test_what_may_learn_is_what_takes_a_slope(case: Case, tmp_path: Path) -> None:
    for block in (None, case.backbone.blocks()[-1]):
        cut = case.backbone.cut(block, case.rows, [None], stored(tmp_path))
        cut.network.train()(*cut.examples.batch(INDEX)).square().sum().backward()
        sloped = {name for name, one in cut.network.named_parameters() if one.grad is not None}
        assert cut.learnable and cut.learnable >= sloped if block is None else cut.learnable == sloped
        own = set(case.backbone.network().state_dict())
        assert {name.removeprefix(cut.prefix) for name in cut.learnable} <= own


def test_a_view_is_kept_beside_the_plain_rows_and_is_always_the_same(case: Case, tmp_path: Path) -> None:
    block = case.backbone.blocks()[-1]
    whole = case.backbone.cut(block, case.rows, [None, Doubled()], stored(tmp_path)).examples
    plain, seen = (view[0] for view in whole.views)
    again = case.backbone.cut(block, case.rows, [None, Doubled()], lambda other: other).examples
    assert np.array_equal(plain, again.views[0][0]) and np.array_equal(seen, again.views[1][0])
    assert not np.array_equal(plain, seen)


def test_what_was_tuned_changes_the_answers_and_comes_back_from_its_state(case: Case) -> None:
    cut = case.backbone.cut(None, case.rows, [None], lambda other: other)
    values = dict(cut.network.named_parameters())
    learnt = {name: 1.3 * values[name].detach().numpy() for name in sorted(cut.learnable)[:4]}
    tuned = case.backbone.tuned(learnt, case.rows)
    assert tuned.fingerprint != case.backbone.fingerprint
    assert tuned.width == case.backbone.width
    state = tuned.state()
    assert set(state.arrays) >= set(learnt) and json.loads(json.dumps(dict(state.config)))
    named = dict(tuned.network().named_parameters())
    assert all(np.allclose(named[name].detach().numpy(), learnt[name]) for name in learnt)
    if case.backbone.state().family != "keras":  # here without a file to come back from
        again = restore(state)
        assert again.fingerprint == tuned.fingerprint
        rows = case.rows.take(INDEX)
        assert np.array_equal(again.features(rows).matrix, tuned.features(rows).matrix)


def test_a_block_that_does_not_exist_is_answered_by_those_that_do(case: Case) -> None:
    with pytest.raises(RequestError, match="its blocks, first to last: .*" + case.backbone.blocks()[-1][-2:]):
        case.backbone.cut("no_such_block", case.rows, [None], lambda other: other)


def test_long_recordings_are_learnt_from_by_their_first_window(tmp_path: Path) -> None:
    source = find(str(tiny_audio.whisper(tmp_path / "whisper")))
    long, short = tiny_audio.rows(5.0), tiny_audio.rows(1.9)
    backbone: Any = open_backbone(source, short)
    sound, steps = backbone.examples(long).batch(np.array([0]))
    assert sound.shape[0] == 1 and steps.tolist() == [50 * tiny_audio.CHUNK]
    with torch.no_grad():
        first = backbone.network()(sound, steps).numpy()
    assert far(backbone.features(long).matrix, first) > 0.01  # answers hear all of it


def test_padding_that_an_encoder_hears_is_refused_in_one_line(tmp_path: Path) -> None:
    source = find(str(tiny_audio.waves(tmp_path / "conformer", "conformer")))
    rows = tiny_audio.rows(0.5, 0.9)
    backbone: Any = open_backbone(source, rows, runtime="torch")
    with pytest.raises(RequestError, match="recordings of different lengths cannot be learnt from together"):
        backbone.examples(rows)
    assert backbone.examples(rows.take(np.array([0]))).batch(np.array([0]))[0].shape[0] == 1
