"""The classifier that a source brings along, where it is a linear layer on the very features we take."""

import re
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork import paths
from graftwork.backbones.base import Backbone
from graftwork.backbones.pretrained import Pretrained
from graftwork.backbones.quiet import quiet
from graftwork.rows import Kind
from graftwork.sources import Source

Classifier = tuple[NDArray[np.float32], NDArray[np.float32]]
"""weight (width, classes) and bias (classes,): logits = features @ weight + bias."""

_LAST = re.compile(r"(classifier|head|score|fc|logits)(\.\w+)?\.weight")
_CHAINED = ("projector.weight", "classifier.weight")
"""Speech classifiers pool between two linear layers, which together are one on the mean."""
_WHOLE: Mapping[Kind, str] = {
    "image": "AutoModelForImageClassification",
    "text": "AutoModelForSequenceClassification",
    "audio": "AutoModelForAudioClassification",
}
ROWS = 4
"""Made-up rows on which the layer must give what the whole model gives."""
AGREEMENT = 1e-3
"""Largest difference of logits, in units of their deviation."""


def own_classifier(source: Source, backbone: Backbone) -> Classifier | None:
    """The source's own last layer, or None where it has none that applies to the backbone's features.

    A layer between the features and the last one, another pooling, or a head that the files lack:
    each gives None. Found out once, by running the whole model of transformers on a few rows, and kept.
    """
    inner = getattr(backbone, "backbone", backbone)  # a remembering backbone holds the one that computes
    if not isinstance(inner, Pretrained):
        return None
    candidates = _candidates(dict(_shapes(source)), inner.width)
    if not candidates:
        return None
    key = {"network": dict(inner.recipe.key), "layers": candidates, "by": version("transformers")}
    found = paths.kept("classifiers", key, lambda: {"layers": _applying(source, inner, candidates)})["layers"]
    return _linear(source, found) if found else None


def source_probabilities(features: NDArray[np.float32], classifier: Classifier) -> NDArray[np.float32]:
    """(rows, classes): the softmax of the source's own classifier over (rows, width) features."""
    weight, bias = classifier
    logits = features @ weight + bias
    logits -= logits.max(axis=1, keepdims=True)
    np.exp(logits, out=logits)
    logits /= logits.sum(axis=1, keepdims=True)
    return np.asarray(logits)


def _candidates(shapes: Mapping[str, tuple[int, ...]], width: int) -> list[list[str]]:
    """Linear layers, or chains of them, that take `width` features."""
    chains = [[name] for name in sorted(shapes) if _LAST.fullmatch(name)]
    chains += [list(_CHAINED)] if set(_CHAINED) <= set(shapes) else []
    return [chain for chain in chains if len(shapes[chain[0]]) == 2 and shapes[chain[0]][1] == width]


def _shapes(source: Source) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Name and shape of every tensor, from the files' headers."""
    from safetensors import safe_open

    for file in source.weights:
        with safe_open(source.folder / file, "np") as opened:
            for name in opened.keys():
                yield name, tuple(opened.get_slice(name).get_shape())


def _linear(source: Source, chain: list[str]) -> Classifier:
    """The chain as one layer."""
    weight, bias = _layer(source, chain[0])
    for name in chain[1:]:
        further, offset = _layer(source, name)
        weight, bias = weight @ further, bias @ further + offset
    return weight, bias


def _layer(source: Source, name: str) -> Classifier:
    """The layer's weight, turned, and its bias, zeros where it has none."""
    weight, bias = _tensor(source, name), _tensor(source, name.removesuffix("weight") + "bias")
    assert weight is not None, name
    return np.ascontiguousarray(weight.T), np.zeros(len(weight), np.float32) if bias is None else bias


def _tensor(source: Source, name: str) -> NDArray[np.float32] | None:
    from safetensors import safe_open

    for file in source.weights:
        with safe_open(source.folder / file, "np") as opened:
            if name not in opened.keys():
                continue
            if opened.get_slice(name).get_dtype() != "BF16":
                return np.asarray(opened.get_tensor(name), dtype=np.float32)
        with safe_open(
            source.folder / file, "pt"
        ) as opened:  # torch reads bfloat16, and takes seconds to start
            return np.asarray(opened.get_tensor(name).float().numpy())
    return None


def _applying(source: Source, backbone: Pretrained, candidates: list[list[str]]) -> list[str]:
    """The first candidate that gives the whole model's logits from the backbone's features, else []."""
    whole = _whole(source)
    if whole is None:
        return []
    features, logits = _both(backbone, whole)
    if logits.shape[1] < 2:
        return []  # a number, no classes
    allowed = AGREEMENT * max(float(logits.std()), 1e-12)
    for chain in candidates:
        weight, bias = _linear(source, chain)
        if weight.shape[1] == logits.shape[1] and np.abs(features @ weight + bias - logits).max() <= allowed:
            return chain
    return []


def _whole(source: Source) -> Any | None:
    """The source with its classifier as transformers builds it, None where it cannot or weights lack."""
    source.verify()
    with quiet():
        import torch
        import transformers

        try:
            module, report = getattr(transformers, _WHOLE[source.kind]).from_pretrained(
                source.folder,
                dtype=torch.float32,
                attn_implementation="eager",
                trust_remote_code=False,
                local_files_only=True,
                use_safetensors=True,
                output_loading_info=True,
            )
        except (ValueError, KeyError, OSError, RuntimeError):
            return None  # no such classifier: the question is answered, not failed
    return None if report["missing_keys"] else module.eval()


def _both(backbone: Pretrained, whole: Any) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Features by the backbone's network and logits by the whole model, float32, on the same inputs."""
    import torch

    network, asked = backbone.recipe.build(), list[Any]()
    network.encoder.register_forward_pre_hook(
        lambda module, arguments, named: asked.append((arguments, named)), with_kwargs=True
    )
    features, logits = [], []
    with torch.inference_mode():
        for _, arrays in backbone.batches(backbone.synthetic().take(np.arange(ROWS)), {}):
            features.append(network(*(torch.from_numpy(array) for array in arrays)).numpy())
            arguments, named = asked.pop()
            logits.append(whole(*arguments, **named).logits.numpy())
    return np.concatenate(features), np.concatenate(logits)
