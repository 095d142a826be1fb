"""A source's own classifier: found where it applies to the features, refused everywhere else."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

import tiny
import tiny_audio
from graftwork import datasets, sources
from graftwork.backbones import classifier, open_backbone
from graftwork.backbones.classifier import own_classifier, source_probabilities
from graftwork.store import remember
from toys import ToyBackbone


@pytest.mark.usefixtures("settled_home")
@pytest.mark.parametrize("make", [tiny.resnet, tiny.vit])
def test_the_classifier_of_a_picture_source_answers_as_the_whole_model(
    make: Callable[[Path], Path], tmp_path: Path
) -> None:
    import torch
    from transformers import AutoModelForImageClassification

    source = sources.find(str(make(tmp_path / "source")))
    backbone = open_backbone(source, None, runtime="torch")
    rows = tiny.image_rows(5)
    found = own_classifier(source, backbone)
    assert found is not None
    assert found[0].shape == (backbone.width, 3) and found[1].shape == (3,)
    said = source_probabilities(backbone.features(rows).matrix, found)

    whole = AutoModelForImageClassification.from_pretrained(source.folder).eval()
    pixels = np.concatenate([arrays[0] for _, arrays in backbone.batches(rows, {})])  # type: ignore[attr-defined]
    normal = torch.from_numpy(pixels).permute(0, 3, 1, 2) / 255 - torch.tensor([0.5, 0.4, 0.3]).view(3, 1, 1)
    with torch.inference_mode():
        expected = whole(normal / torch.tensor([0.2, 0.3, 0.4]).view(3, 1, 1)).logits.softmax(1).numpy()
    np.testing.assert_allclose(said, expected, atol=1e-5)


@pytest.mark.usefixtures("settled_home")
def test_a_classifier_is_refused_where_the_features_are_pooled_otherwise(tmp_path: Path) -> None:
    source = sources.find(str(tiny.vit(tmp_path / "source")))
    assert own_classifier(source, open_backbone(source, None, runtime="torch", pooling="mean")) is None
    # the answer kept for one pooling is not taken for another
    assert own_classifier(source, open_backbone(source, None, runtime="torch")) is not None


@pytest.mark.usefixtures("settled_home")
def test_what_was_found_out_is_kept_and_a_remembering_backbone_is_as_good(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = sources.find(str(tiny.resnet(tmp_path / "source")))
    backbone = open_backbone(source, None, runtime="torch")
    first = own_classifier(source, backbone)
    monkeypatch.setattr(classifier, "_whole", lambda source: pytest.fail("asked again"))
    again = own_classifier(source, remember(backbone))
    assert first is not None and again is not None
    np.testing.assert_array_equal(first[0], again[0])


@pytest.mark.usefixtures("settled_home")
def test_a_layer_that_only_looks_like_the_classifier_is_refused(tmp_path: Path) -> None:
    folder = tiny.vit(tmp_path / "source")
    weights = load_file(folder / "model.safetensors")
    weights["head.weight"] = weights["classifier.weight"] + 1.0
    del weights["classifier.weight"], weights["classifier.bias"]
    save_file(weights, folder / "model.safetensors", {"format": "pt"})
    source = sources.find(str(folder))
    assert own_classifier(source, open_backbone(source, None, runtime="torch")) is None


@pytest.mark.usefixtures("settled_home")
def test_a_text_classifier_behind_a_further_layer_is_refused(tmp_path: Path) -> None:
    from transformers import BertConfig, BertForSequenceClassification

    folder = tiny.bert(tmp_path / "source")
    config = BertConfig.from_pretrained(folder, num_labels=5)
    tiny._save(folder, BertForSequenceClassification, config, 0)
    source = sources.find(str(folder))
    assert own_classifier(source, open_backbone(source, None, runtime="torch")) is None


@pytest.mark.usefixtures("settled_home")
@pytest.mark.parametrize("name", ["wav2vec2", "wavlm"])
def test_two_linear_layers_around_the_mean_of_a_recording_are_one_classifier(
    name: str, tmp_path: Path
) -> None:
    import torch
    from transformers import AutoFeatureExtractor, AutoModelForAudioClassification

    source = sources.find(
        str(tiny_audio.waves(tmp_path / "source", name, ending="ForSequenceClassification"))
    )
    backbone = open_backbone(source, None, runtime="torch")
    found = own_classifier(source, backbone)
    assert found is not None and found[0].shape == (backbone.width, 2)
    said = source_probabilities(backbone.features(tiny_audio.rows(1.0)).matrix, found)

    whole = AutoModelForAudioClassification.from_pretrained(source.folder).eval()
    heard = AutoFeatureExtractor.from_pretrained(source.folder)(
        tiny_audio.sound(1.0), sampling_rate=tiny_audio.RATE, return_tensors="pt"
    )
    with torch.inference_mode():
        expected = whole(heard["input_values"]).logits.softmax(1).numpy()
    np.testing.assert_allclose(said, expected, atol=1e-4)
    assert own_classifier(source, open_backbone(source, None, runtime="torch", pooling="meanstd")) is None


def test_a_source_without_a_classifier_and_a_backbone_of_another_family_have_none(
    settled_home: Path, tmp_path: Path
) -> None:
    source = sources.find(str(tiny.bert(tmp_path / "source")))
    assert own_classifier(source, open_backbone(source, None, runtime="torch")) is None
    assert own_classifier(source, ToyBackbone()) is None


def test_probabilities_sum_to_one_and_large_logits_stay_finite() -> None:
    features = np.array([[1e4, 0.0], [0.0, 1.0]], np.float32)
    said = source_probabilities(features, (np.eye(2, 3, dtype=np.float32), np.zeros(3, np.float32)))
    np.testing.assert_allclose(said.sum(1), 1.0, rtol=1e-6)
    np.testing.assert_allclose(said[1], np.exp([0, 1, 0]) / np.exp([0, 1, 0]).sum(), rtol=1e-6)


def test_real_sources_know_birds_and_insects_by_their_own_labels(
    settled_home: Path, real_models: Path, real_data: Path
) -> None:
    """The birds' own classifier tells the kinds in birds6 apart far better than the insects' does."""
    from graftwork.transferability.source_labels import leep

    data = datasets.load(real_data / "birds6")
    data = data.take(np.arange(0, len(data), 20))
    told = {}
    for name in (
        "mobilenet_v1_0.25_128",
        "mobilenet_v2_1.0_224_inat_bird",
        "mobilenet_v2_1.0_224_inat_insect",
    ):
        source = sources.find(str(real_models / name))
        backbone = open_backbone(source, data.rows, runtime="torch")
        found = own_classifier(source, backbone)
        assert found is not None, name
        said = source_probabilities(backbone.features(data.rows).matrix, found)
        told[name[13:]] = leep(said, data.target.codes[None], len(data.labels))[0]
    assert told["1.0_224_inat_bird"] > told["1.0_224_inat_insect"] + 0.1
    embedding = sources.find(str(real_models / "mobilenet_v1_1.0_224"))
    assert own_classifier(embedding, open_backbone(embedding, data.rows, runtime="torch")) is None
