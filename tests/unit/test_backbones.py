"""Image and text encoders: the source's own preprocessing, honest pooling, everything in the fingerprint."""

import json
import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import tiny
import toys
from graftwork.backbones import open_backbone, restore
from graftwork.backbones.base import labelled_matrix
from graftwork.backbones.images import Images, preprocessing_of
from graftwork.backbones.texts import TextEncoder, open_texts
from graftwork.errors import ArtefactError, RequestError, UnknownName, Unreadable
from graftwork.rows import Contents, Rows, Texts
from graftwork.sources import Source, find

Build = Callable[[Path], Path]


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("models")
    return {
        "resnet": tiny.resnet(folder / "resnet"),
        "vit": tiny.vit(folder / "vit"),
        "bert": tiny.bert(folder / "bert"),
    }


def opened(folder: Path, **settings: Any) -> Any:
    return open_backbone(find(str(folder)), None, runtime="torch", **settings)


def described(folder: Path, stated: dict[str, Any], model_type: str = "vit") -> Source:
    """A source of which only the preprocessing matters."""
    tiny.write(folder / "config.json", {"model_type": model_type})
    tiny.write(folder / "preprocessor_config.json", stated)
    files = {"config.json": str(folder), "preprocessor_config.json": "1", "model.safetensors": "2"}
    return Source("described", "image", "images", folder, files, (), "local")


STATED = {
    "short side, crop": tiny.processor(40, 32),
    "short side, odd crop": tiny.processor(41, 27),
    "crop larger than the picture": tiny.processor(20, 33),
    "stretch": tiny.processor([24, 36], None),
    "stretch, crop, bicubic": tiny.processor([40, 44], 32, resample=3),
    "no rescale": tiny.processor(40, 32, do_rescale=False),
    "no normalise": tiny.processor(40, 32, do_normalize=False),
    "old form": {
        "do_resize": True, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
        "size": 30, "resample": 2, "feature_extractor_type": "ViTFeatureExtractor",
    },
    "crop share": {
        "do_resize": True, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
        "size": {"shortest_edge": 28}, "crop_pct": 0.875, "resample": 3, "do_rescale": True,
        "image_processor_type": "ConvNextImageProcessor",
    },
    "crop share, large": {
        "do_resize": True, "do_normalize": True, "image_mean": [0.5] * 3, "image_std": [0.5] * 3,
        "size": {"shortest_edge": 384}, "crop_pct": 0.875, "resample": 2, "do_rescale": True,
        "image_processor_type": "ConvNextImageProcessor",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", STATED)
def test_pictures_are_prepared_as_the_source_s_own_processor_does(tmp_path: Path, name: str) -> None:
    from graftwork.backbones.quiet import quiet

    source = described(tmp_path, STATED[name])
    preprocessing = preprocessing_of(source, fit=False)
    framing = Images(source, {"preprocessing": preprocessing}).framing
    with quiet():
        from transformers import AutoImageProcessor

        processor = AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    mean, std = np.array(preprocessing["mean"]), np.array(preprocessing["std"])
    for picture in tiny.pictures(8):
        mine = (framing.apply(tiny.encoded(picture)) - mean) / std
        theirs = processor(picture, return_tensors="np")["pixel_values"][0].transpose(1, 2, 0)
        assert mine.shape == theirs.shape
        # a difference of one grey level would be 0.008 or more
        assert np.abs(mine - theirs).max() < 1e-3


def test_fit_keeps_the_whole_picture_on_the_mean_colour(tmp_path: Path) -> None:
    preprocessing = preprocessing_of(described(tmp_path, tiny.processor(40, 32)), fit=True)
    framing = Images(described(tmp_path, tiny.processor(40, 32)), {"preprocessing": preprocessing}).framing
    wide = Image.new("RGB", (100, 25), "red")
    pixels = framing.apply(tiny.encoded(wide))
    assert pixels.shape == (32, 32, 3)
    assert (pixels[12:20] == [255, 0, 0]).all()
    assert (pixels[:12] == framing.fill).all() and (pixels[20:] == framing.fill).all()
    assert framing.fill == (128, 102, 76)


def test_a_large_photo_is_decoded_smaller_and_looks_the_same(tmp_path: Path) -> None:
    source = described(tmp_path, tiny.processor(40, 32))
    framing = Images(source, {"preprocessing": preprocessing_of(source, fit=False)}).framing
    (picture,) = tiny.pictures(1, low=600, high=700)
    buffer = BytesIO()
    picture.save(buffer, "JPEG", quality=95)
    small = framing.apply(buffer.getvalue()).astype(int)
    whole = framing.apply(tiny.encoded(picture)).astype(int)
    assert np.abs(small - whole).mean() < 3


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"size": {"shortest_edge": 40}, "do_center_crop": False}, "varying size.*--resize fit"),
        ({"image_mean": [0.5], "image_std": [0.5]}, "RGB"),
    ],
)
def test_preprocessing_that_cannot_be_followed_is_refused(
    tmp_path: Path, change: dict[str, Any], said: str
) -> None:
    with pytest.raises(RequestError, match=said):
        preprocessing_of(described(tmp_path, {**tiny.processor(40, 32), **change}), fit=False)


def reference(folder: Path, pixels: np.ndarray) -> Any:
    import torch
    from transformers import AutoModel

    from graftwork.backbones.quiet import quiet

    with quiet(), torch.inference_mode():
        encoder = AutoModel.from_pretrained(folder).eval()
        return encoder(pixel_values=torch.from_numpy(pixels.transpose(0, 3, 1, 2).astype(np.float32)))


def normalised(backbone: Images, rows: Rows) -> np.ndarray:
    pixels = np.stack([backbone.framing.apply(rows.column.read(i)) for i in range(len(rows))])
    preprocessing = backbone.config["preprocessing"]
    return (pixels - np.array(preprocessing["mean"])) / np.array(preprocessing["std"])


@pytest.mark.parametrize(
    ("name", "pooling", "cut"),
    [
        ("resnet", None, lambda output: output.pooler_output.flatten(1)),
        ("resnet", "pooled", lambda output: output.pooler_output.flatten(1)),
        ("resnet", "mean", lambda output: output.last_hidden_state.mean((2, 3))),
        ("resnet", "flatten", lambda output: output.last_hidden_state.flatten(1)),
        ("vit", None, lambda output: output.last_hidden_state[:, 0]),
        ("vit", "cls", lambda output: output.last_hidden_state[:, 0]),
        ("vit", "mean", lambda output: output.last_hidden_state[:, 1:].mean(1)),
        ("vit", "flatten", lambda output: output.last_hidden_state.flatten(1)),
    ],
)
def test_image_features_are_the_cut_that_was_asked_for(
    models: dict[str, Path], name: str, pooling: str | None, cut: Callable[[Any], Any]
) -> None:
    backbone, rows = opened(models[name], pooling=pooling), tiny.image_rows(5)
    expected = cut(reference(models[name], normalised(backbone, rows))).numpy()
    found = backbone.features(rows).matrix
    assert found.shape == expected.shape == (5, backbone.width)
    assert np.allclose(found, expected, rtol=1e-3, atol=1e-5)


def test_a_pooler_without_weights_is_not_used(models: dict[str, Path]) -> None:
    with pytest.raises(ArtefactError, match=r"lack 2 tensors.*pooler"):
        opened(models["vit"], pooling="pooled")


def test_a_cut_the_network_does_not_have_is_refused(models: dict[str, Path]) -> None:
    with pytest.raises(RequestError, match="no class token"):
        opened(models["resnet"], pooling="cls")


def test_wrong_settings_are_refused_with_the_right_ones(models: dict[str, Path]) -> None:
    with pytest.raises(RequestError, match=r"'avg'.*auto, pooled, cls, mean, flatten"):
        opened(models["resnet"], pooling="avg")
    with pytest.raises(RequestError, match="crop or fit"):
        opened(models["resnet"], resize="squash")
    with pytest.raises(RequestError, match=r"texts.*--resize"):
        opened(models["bert"], resize="fit")
    with pytest.raises(RequestError, match=r"'pooled'.*auto, mean, cls, max"):
        opened(models["bert"], pooling="pooled")


def test_weights_that_lack_tensors_are_refused(models: dict[str, Path], tmp_path: Path) -> None:
    from safetensors.numpy import load_file, save_file

    folder = shutil.copytree(models["resnet"], tmp_path / "net")
    weights = load_file(folder / "model.safetensors")
    name = next(name for name in weights if "convolution" in name)
    del weights[name]
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ArtefactError, match="lack 1 tensors"):
        opened(folder)


def test_weights_changed_since_the_source_was_found_are_not_loaded(
    models: dict[str, Path], tmp_path: Path
) -> None:
    folder = shutil.copytree(models["resnet"], tmp_path / "net")
    source = find(str(folder))
    content = bytearray((folder / "model.safetensors").read_bytes())
    content[-1] ^= 1
    (folder / "model.safetensors").write_bytes(content)
    with pytest.raises(ArtefactError, match="has changed"):
        open_backbone(source, None, runtime="torch")


def test_an_unknown_architecture_is_refused(models: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(models["resnet"], tmp_path / "net")
    tiny.write(folder / "config.json", {"model_type": "no_such_net"})
    with pytest.raises(RequestError, match=r"'no_such_net'.*transformers"):
        opened(folder)


def test_code_in_a_source_is_never_run(models: dict[str, Path], tmp_path: Path) -> None:
    folder = shutil.copytree(models["resnet"], tmp_path / "net")
    config = {"model_type": "custom", "auto_map": {"AutoConfig": "evil.C", "AutoModel": "evil.M"}}
    tiny.write(folder / "config.json", config)
    mark = tmp_path / "ran"
    (folder / "evil.py").write_text(f"open({str(mark)!r}, 'w')\nclass C: pass\nclass M: pass\n")
    with pytest.raises(RequestError, match="'custom'"):
        opened(folder)
    assert not mark.exists()


def test_unreadable_pictures_are_named_and_the_others_unharmed(models: dict[str, Path]) -> None:
    whole = tiny.image_rows(6)
    contents = [whole.column.read(i) for i in range(6)]
    contents[1], contents[4] = b"", b"no picture"
    found = opened(models["resnet"]).features(Rows(whole.names, {"image": Contents("image", contents)}))
    assert set(found.unreadable) == {1, 4}
    assert "0 bytes" in found.unreadable[1]
    good = [0, 2, 3, 5]
    assert np.isnan(found.matrix[[1, 4]]).all()
    assert np.array_equal(found.matrix[good], opened(models["resnet"]).features(whole).matrix[good])


def test_text_features_are_those_of_the_plain_formula(models: dict[str, Path]) -> None:
    import torch
    from tokenizers import Tokenizer
    from transformers import AutoModel

    from graftwork.backbones.quiet import quiet

    rows = tiny.text_rows(10)
    backbone = opened(models["bert"])
    tokenizer = Tokenizer.from_file(str(models["bert"] / "tokenizer.json"))
    tokenizer.enable_truncation(24)
    with quiet(), torch.inference_mode():
        encoder = AutoModel.from_pretrained(models["bert"]).eval()
        expected = []
        for i in range(10):
            ids = torch.tensor([tokenizer.encode(rows.column.read(i).decode()).ids])
            mean = encoder(input_ids=ids).last_hidden_state.mean(1)
            expected.append(torch.nn.functional.normalize(mean, dim=1).numpy())
    assert np.allclose(backbone.features(rows).matrix, np.concatenate(expected), atol=1e-5)


def test_unit_length_only_where_the_source_says_so(tmp_path: Path) -> None:
    found = opened(tiny.bert(tmp_path / "plain", normalise=False)).features(tiny.text_rows(4)).matrix
    assert (np.abs(np.linalg.norm(found, axis=1) - 1) > 1e-3).all()


def one_text(text: str) -> Rows:
    return Rows(["text"], {"text": Texts([text])})


def test_a_text_of_a_million_characters_costs_no_more_than_its_beginning(models: dict[str, Path]) -> None:
    backbone = opened(models["bert"])
    lengths = []
    encode = backbone.tokenizer.encode_batch

    class Counting:
        def encode_batch(self, texts: list[str]) -> Any:
            lengths.extend(map(len, texts))
            return encode(texts)

    long = "good film " * 100_000
    expected = backbone.features(one_text("good film " * 30)).matrix
    backbone.__dict__["tokenizer"] = Counting()
    assert np.array_equal(backbone.features(one_text(long)).matrix, expected)
    assert max(lengths) <= 32 * 24


@pytest.mark.parametrize(
    "text",
    ["", " " * 5000 + "good film", "x" * 3000 + " bad plot", "好" * 2000, "\ud800", "!" * 900 + "x" * 900],
)
def test_odd_texts_are_cut_as_their_whole_would_be(models: dict[str, Path], text: str) -> None:
    backbone = opened(models["bert"])
    whole = text.encode("utf-8", "surrogatepass").decode("utf-8", "replace")
    ids = backbone.tokenizer.encode(whole).ids
    _, (found,) = backbone.tokenised(one_text(text).column, range(1), {})
    assert found == ids
    assert np.isfinite(backbone.features(one_text(text)).matrix).all()


def test_the_token_limit_never_exceeds_the_position_table(tmp_path: Path) -> None:
    folder = tiny.bert(tmp_path / "net", tokens=1000)
    assert opened(folder).limit == 64
    config = json.loads((folder / "config.json").read_text())
    tiny.write(folder / "config.json", {**config, "model_type": "roberta", "pad_token_id": 1})
    from graftwork.backbones.texts import limit_of

    assert limit_of(find(str(folder))) == 62


def test_everything_that_shapes_the_numbers_changes_the_fingerprint(
    models: dict[str, Path], tmp_path: Path
) -> None:
    plain = opened(models["resnet"])
    other = opened(tiny.resnet(tmp_path / "other", seed=1))
    stretched = shutil.copytree(models["resnet"], tmp_path / "stretched")
    tiny.write(stretched / "preprocessor_config.json", tiny.processor(41, 32))
    compiled = open_backbone(find(str(models["resnet"])), None, runtime="openvino")
    found = [
        plain, other, opened(stretched), opened(models["resnet"], pooling="mean"),
        opened(models["resnet"], resize="fit"), compiled,
    ]  # fmt: skip
    assert len({backbone.fingerprint for backbone in found}) == len(found)
    words = opened(models["bert"])
    assert words.fingerprint != opened(models["bert"], pooling="cls").fingerprint
    shorter = shutil.copytree(models["bert"], tmp_path / "shorter")
    tiny.write(shorter / "sentence_bert_config.json", {"max_seq_length": 8})
    assert words.fingerprint != opened(shorter).fingerprint


def test_the_place_and_name_of_a_source_do_not_change_the_fingerprint(
    models: dict[str, Path], tmp_path: Path
) -> None:
    moved = shutil.copytree(models["resnet"], tmp_path / "renamed")
    assert opened(moved).fingerprint == opened(models["resnet"]).fingerprint


def test_an_opened_backbone_loads_nothing_until_it_must(
    models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    from graftwork.backbones import engine

    first = opened(models["resnet"])
    monkeypatch.setattr(engine, "_load", lambda *_: pytest.fail("the network was loaded"))
    again = opened(models["resnet"])
    assert again.fingerprint == first.fingerprint and again.width == 16
    assert again.features(tiny.image_rows(0)).matrix.shape == (0, 16)
    assert restore(again.state()).fingerprint == first.fingerprint


def test_a_runtime_this_machine_lacks_gives_way_to_one_it_has(models: dict[str, Path]) -> None:
    backbone = opened(models["resnet"])
    elsewhere = Images(backbone.source, {**backbone.config, "runtime": "cuda", "precision": "bf16"})
    from graftwork.backbones import engine

    if engine.has_gpu():
        pytest.skip("this machine has a GPU")
    found = restore(elsewhere.state())
    assert found.state().config["runtime"] != "cuda"
    assert found.features(tiny.image_rows(2)).matrix.shape == (2, 16)


def test_a_saved_backbone_without_its_source_is_refused(models: dict[str, Path]) -> None:
    from dataclasses import replace

    for name in ("resnet", "bert"):
        with pytest.raises(ArtefactError, match="no source"):
            restore(replace(opened(models[name]).state(), source=None))


def test_an_unknown_family_is_refused(models: dict[str, Path]) -> None:
    from dataclasses import replace

    with pytest.raises(UnknownName, match="no backbone 'imagess'"):
        restore(replace(opened(models["resnet"]).state(), family="imagess"))


def test_libraries_stay_silent(models: dict[str, Path], capfd: pytest.CaptureFixture[str]) -> None:
    from graftwork.backbones import engine

    engine._runners.clear()
    open_backbone(find(str(models["vit"])), tiny.image_rows(3)).features(tiny.image_rows(3))
    assert capfd.readouterr() == ("", "")


def test_few_sample_rows_are_joined_by_made_up_ones(models: dict[str, Path]) -> None:
    backbone = opened(models["resnet"])
    assert len(backbone.sample_inputs(tiny.image_rows(3))) == 3 + 16
    assert len(backbone.sample_inputs(tiny.image_rows(20))) == 20
    assert len(backbone.sample_inputs(tiny.image_rows(70))) == 64
    words = opened(models["bert"])
    assert isinstance(words, TextEncoder) and len(words.sample_inputs(None)) == 16
    assert open_texts(find(str(models["bert"])), runtime="torch") == words


def test_what_is_wrong_with_every_row_is_said_of_the_source(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = tiny.text_rows(5)
    backbone = toys.ToyBackbone()
    given = backbone.features(rows)
    bad = {i: "has features that are no numbers" for i in range(5)}
    monkeypatch.setattr(toys.ToyBackbone, "features", lambda *_: replace(given, unreadable=bad))
    with pytest.raises(RequestError, match=r"each of the 5 rows .* no numbers: .* source's fault"):
        labelled_matrix(backbone, rows)
    monkeypatch.setattr(toys.ToyBackbone, "features", lambda *_: replace(given, unreadable={3: bad[3]}))
    with pytest.raises(Unreadable, match=re.escape(rows.names[3])):
        labelled_matrix(backbone, rows)
