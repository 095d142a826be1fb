"""The compact backbone: what counts as ink, answers that stand alone, sources that are checked."""

import json
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from graftwork import sources
from graftwork.backbones import open_backbone
from graftwork.backbones.compact import Compact, Preparation, ink, open_compact, prepare, restore, weights
from graftwork.errors import ArtefactError, RequestError
from graftwork.networks import Block, CompactConfig, CompactNet
from graftwork.pretraining import write
from graftwork.rows import Contents, Rows

CONFIG = CompactConfig(1, 16, 8, 1, (Block(8, 1, 2), Block(16, 2, 2)), 24, cells=2)
INK = Preparation("ink")


def png(pixels: np.ndarray) -> bytes:
    out = BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def rows_of(contents: list[bytes]) -> Rows:
    return Rows([f"{i}.png" for i in range(len(contents))], {"image": Contents("image", contents)})


def stroke(side: int = 20, at: tuple[int, int] = (5, 8)) -> np.ndarray:
    """A white letter L on black."""
    picture = np.zeros((side, side), dtype=np.uint8)
    y, x = at
    picture[y : y + 8, x : x + 2] = 255
    picture[y + 6 : y + 8, x : x + 6] = 255
    return picture


def backbone(seed: int = 0) -> Compact:
    torch.manual_seed(seed)
    network = CompactNet(CONFIG, classes=2)
    with torch.no_grad():
        network(torch.rand(8, 1, 16, 16))
    return Compact(CONFIG, INK, weights(network))


@pytest.fixture
def pictures() -> Rows:
    rng = np.random.default_rng(0)
    return rows_of([png(rng.integers(0, 256, (12, 9 + i), dtype=np.uint8)) for i in range(40)])


def prepared(pixels: np.ndarray, preparation: Preparation = INK) -> np.ndarray:
    return prepare(Image.fromarray(pixels).convert("RGB"), CONFIG, preparation)


def test_black_on_white_and_white_on_black_are_the_same_ink() -> None:
    assert np.array_equal(prepared(stroke()), prepared(255 - stroke()))
    assert prepared(stroke()).max() == 255


def test_faint_ink_on_a_tinted_ground_is_the_same_ink() -> None:
    faint = (100 + stroke() // 5).astype(np.uint8)
    assert np.abs(prepared(faint).astype(int) - prepared(stroke())).max() <= 1


def test_place_of_the_ink_and_empty_space_around_it_do_not_matter() -> None:
    expected = prepared(stroke())
    for side, at in ((20, (1, 2)), (20, (12, 14)), (60, (30, 3)), (8, (0, 0))):
        assert np.array_equal(prepared(stroke(side, at)), expected)


def test_ink_keeps_its_proportions() -> None:
    bar = np.zeros((30, 30), dtype=np.uint8)
    bar[5:25, 14:16] = 255
    found = prepared(bar)[0] > 128
    assert found.any(1).sum() >= 13
    assert found.any(0).sum() <= 3


def test_picture_without_ink_is_black() -> None:
    assert not prepared(np.full((9, 9), 77, dtype=np.uint8)).any()
    assert not ink(np.full((3, 3), 5, dtype=np.float32)).any()


def test_whole_picture_is_kept_in_the_other_preparation() -> None:
    pixels = np.zeros((10, 40, 3), dtype=np.uint8)
    pixels[:, 20:] = (255, 0, 0)
    config = CompactConfig(3, 16, 8, 1, (), 24)
    found = prepare(Image.fromarray(pixels), config, Preparation("whole"))
    assert found.shape == (3, 16, 16)
    assert (found[0, :, :7] == 0).all() and (found[0, :, 9:] == 255).all()
    assert not found[1:].any()


def test_answers_do_not_depend_on_order_or_company(pictures: Rows) -> None:
    found = backbone()
    whole = found.features(pictures).matrix
    order = np.random.default_rng(1).permutation(len(pictures))
    assert np.array_equal(found.features(pictures.take(order)).matrix, whole[order])
    assert np.array_equal(found.features(pictures.take(np.array([17]))).matrix, whole[[17]])


def test_features_are_those_of_the_network_in_eval_mode(pictures: Rows) -> None:
    found = backbone()
    network = CompactNet(CONFIG, classes=2)
    state = {name: torch.from_numpy(array) for name, array in found.arrays.items()}
    network.load_state_dict(state, strict=False)
    network.eval()
    one = prepare(Image.open(BytesIO(pictures.column.read(3))).convert("RGB"), CONFIG, INK)
    with torch.inference_mode():
        expected = network.features(torch.from_numpy(one[None]) / 255).numpy()
    assert np.allclose(found.features(pictures.take(np.array([3]))).matrix, expected, atol=1e-4)


def test_unreadable_picture_is_named_and_the_others_answered() -> None:
    good = png(stroke())
    features = backbone().features(rows_of([good, b"no picture at all", b"", good]))
    assert set(features.unreadable) == {1, 2}
    assert np.isnan(features.matrix[[1, 2]]).all()
    assert np.isfinite(features.matrix[[0, 3]]).all()


def test_restored_backbone_gives_the_same_numbers(pictures: Rows) -> None:
    found = backbone()
    again = restore(found.state())
    assert json.loads(json.dumps(found.state().config)) == found.state().config
    assert again.fingerprint == found.fingerprint
    assert np.array_equal(again.features(pictures).matrix, found.features(pictures).matrix)


def test_fingerprint_changes_with_weights_and_with_preparation() -> None:
    found = backbone()
    prints = {
        found.fingerprint,
        backbone(seed=1).fingerprint,
        Compact(CONFIG, Preparation("whole"), found.arrays).fingerprint,
        Compact(CONFIG, Preparation("ink", margin=0.3), found.arrays).fingerprint,
    }
    assert len(prints) == 4


def saved(folder: Path) -> sources.Source:
    return write(folder, CONFIG, INK, dict(backbone().arrays), {}, "# toy\n", [])


def test_source_folder_opens_with_the_same_numbers(tmp_path: Path, pictures: Rows) -> None:
    source = saved(tmp_path / "toy")
    opened = open_compact(source)
    assert opened.source == source and opened.kind == "image" and opened.width == 24
    assert np.array_equal(opened.features(pictures).matrix, backbone().features(pictures).matrix)
    state = opened.state()
    assert not state.arrays
    assert restore(state).fingerprint == opened.fingerprint


@pytest.mark.parametrize("option", [{"pooling": "cls"}, {"resize": "crop"}])
def test_options_that_do_not_apply_are_refused_not_passed_over(option: dict[str, str]) -> None:
    glyphs = sources.find("glyphs")
    with pytest.raises(RequestError, match="'glyphs' is taken as it is; leave --pooling and --resize out"):
        open_backbone(glyphs, None, **option)  # type: ignore[arg-type]
    assert open_backbone(glyphs, None, pooling="auto").width == 192


def test_altered_weights_are_refused(tmp_path: Path) -> None:
    source = saved(tmp_path / "toy")
    path = source.folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)
    with pytest.raises(ArtefactError, match="changed"):
        open_compact(source)


def test_config_of_another_network_or_version_is_refused(tmp_path: Path) -> None:
    saved(tmp_path / "toy")
    path = tmp_path / "toy" / "config.json"
    described = json.loads(path.read_text())
    for change in (
        {"version": 99},
        {"network": {**described["network"], "features": 32}},
        {"preparation": {"frame": "sideways"}},
        {"preparation": {"crop": 3}},
        {"network": None},
    ):
        path.write_text(json.dumps({**described, **change}))
        with pytest.raises(ArtefactError):
            open_compact(sources.read(tmp_path / "toy", name="toy"))


def test_packaged_glyphs_is_small_and_answers() -> None:
    source = sources.find("glyphs")
    assert (source.folder / "model.safetensors").stat().st_size <= 2_000_000
    assert "no digits" in source.json("config.json")["pretraining"]["dataset"]
    features = open_compact(source).features(rows_of([png(stroke()), png(stroke(28))])).matrix
    assert np.array_equal(features[0], features[1])
