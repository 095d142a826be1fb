"""Random weights as a control: `random:NAME`, the source NAME as it was before it learnt anything.

Whatever a network with random weights reaches was not learnt elsewhere: it is the architecture's and
the head's. `random:NAME@SEED` draws others than seed 0. On first use the source is written as a
folder under GRAFT_HOME/random, with NAME's own configuration, tokenizer and preprocessing; the same
seed gives the same weights on the same kind of machine.
"""

import json
import re
import shutil
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork import paths, sources
from graftwork.backbones.quiet import quiet
from graftwork.errors import RequestError, WorkError
from graftwork.sources import Source
from graftwork.sources.source import file_digest

VERSION = 1
"""Raised whenever the same seed begins to give other weights."""
PICTURES = 4
"""Made-up pictures from which the statistics of batch normalisation are taken."""
Drawn = tuple[tuple[str, ...], Mapping[str, Any]]
"""The weights' files, relative to their folder, and the options that are others than the source's."""
_DRAWN_AS = "drawn.json"
_INDEX = "model.safetensors.index.json"


def named(rest: str, *, offline: bool) -> Source:
    """The source of `random:NAME` or `random:NAME@SEED`, made on first use.

    Raises what finding NAME raises, RequestError for a family whose weights cannot be drawn here,
    WorkError where GRAFT_HOME cannot be written.
    """
    name, at, seed = rest.rpartition("@")
    if not (at and seed.isdigit()):
        name, seed = rest, "0"
    if not name or name.startswith("random:"):
        seen = f"{name!r} is random already" if name else "there is no name after random:"
        raise RequestError(f"{seen}; expected random:NAME or random:NAME@SEED, NAME a source")
    base = _base(name, offline)
    if base.family not in _DRAWN:
        raise RequestError(
            f"no random weights for {name!r}, of family {base.family!r}; families that have them: "
            f"{', '.join(sorted(_DRAWN))}"
        )
    folder = _made(base, int(seed))
    drawn = _whole(folder)
    assert drawn is not None, folder
    weights, options = tuple(drawn["weights"]), {**base.options, **drawn["options"]}
    return Source(
        f"random:{rest}", base.kind, base.family, folder, drawn["files"], weights, "local", options=options
    )


def _base(name: str, offline: bool) -> Source:
    """The source called `name`; of a Keras application the network alone, which needs no file."""
    if not name.startswith("keras:"):
        return sources.find(name, offline=offline)
    from graftwork.sources.keras import described

    architecture = name.removeprefix("keras:").partition("@")[0]
    options = {"architecture": architecture, "size": described(architecture)["size"], "scaled_twice": False}
    return Source(name, "image", "keras", Path(), {}, (), "local", options=options)


def _made(base: Source, seed: int) -> Path:
    """The folder of the drawn source, whole; made where there is none, made again where it is damaged."""
    key = {"files": dict(base.files), "options": dict(base.options), "family": base.family, "seed": seed}
    slug = re.sub(r"[^A-Za-z0-9._-]+", "-", Path(base.name).name)[:60].strip("-.")
    folder = paths.home() / "random" / f"{slug}-{paths.digest_of({**key, 'version': VERSION})[:12]}"
    if _whole(folder) is None:
        try:
            _make(base, seed, folder)
        except OSError as error:
            raise WorkError(
                f"random weights of {base.name!r} cannot be written to {folder} ({error.strerror or error}); "
                "free the disk, or set GRAFT_HOME to a place that can be written"
            ) from error
    return folder


def _make(base: Source, seed: int, folder: Path) -> None:
    """Write whole or not at all; another process that makes the same may be first."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    work = Path(tempfile.mkdtemp(prefix=".", dir=folder.parent))
    try:
        for name in base.files:
            if name not in base.weights and name != _INDEX:
                (work / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(base.folder / name, work / name)
        weights, options = _DRAWN[base.family](base, work, seed)
        files = [path for path in sorted(work.rglob("*")) if path.is_file()]
        digests = {str(path.relative_to(work)): paths.file_digest(path) for path in files}
        drawn = {"files": digests, "weights": weights, "options": dict(options)}
        (work / _DRAWN_AS).write_text(json.dumps(drawn), "utf-8")
        work.chmod(0o755)
        if folder.exists() and _whole(folder) is None:
            shutil.rmtree(folder)  # damaged
        if not folder.exists():
            work.rename(folder)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _whole(folder: Path) -> dict[str, Any] | None:
    """What was written there: files with their SHA-256, weights, options; None where any of it is damaged."""
    try:
        drawn = json.loads((folder / _DRAWN_AS).read_text("utf-8"))
        whole = all(file_digest(folder / name) == digest for name, digest in drawn["files"].items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None
    return dict(drawn) if whole else None


def _transformers(base: Source, work: Path, seed: int) -> Drawn:
    """The encoder as its own code initialises it."""
    with quiet(), _seeded(seed):
        import torch
        from transformers import AutoConfig, AutoModel

        from graftwork.backbones.images import preprocessing_of

        try:
            config = AutoConfig.from_pretrained(base.folder, trust_remote_code=False, local_files_only=True)
            build: Any = AutoModel.from_config  # it has no types
            module = build(config, dtype=torch.float32, trust_remote_code=False)
        except (ValueError, KeyError) as error:
            raise RequestError(
                f"source {base.name!r} is of an architecture that the installed transformers cannot build; "
                "try: pip install -U transformers, or another source"
            ) from error
        if base.kind == "image":
            framing = preprocessing_of(base, fit=True)["framing"]
            pixels = _smooth(framing["height"], framing["width"], 1.0)
            _settle(module, lambda: module(pixel_values=pixels))
        module.eval().save_pretrained(work / "saved", max_shard_size="1000GB")
    # a copy: the library gives a file that only its owner may read
    shutil.copyfile(work / "saved" / "model.safetensors", work / "model.safetensors")
    shutil.rmtree(work / "saved")
    return ("model.safetensors",), {}


def _settle(module: Any, run: Callable[[], Any]) -> None:
    """Give batch normalisation the statistics of made-up pictures, which `run` puts through in float64.

    With the initial ones (mean 0, variance 1) nothing is normalised, and the small weights that encoders
    are initialised with multiply through: MobileNetV2's features are then finite but of size 1e-22, its
    own trained ones 0.2; with these statistics they are 0.3 and differ from picture to picture.
    """
    import torch
    from torch.nn.modules.batchnorm import _BatchNorm

    norms = [one for one in module.modules() if isinstance(one, _BatchNorm)]
    if not norms:
        return
    momenta = [one.momentum for one in norms]
    module.eval()
    for one in norms:
        one.train()
        one.momentum = 1.0  # the statistics of this one batch, whole
    module.double()  # float64: sums then round to the same float32 whatever the number of threads
    with torch.no_grad():
        run()
    module.float()
    for one, momentum in zip(norms, momenta, strict=True):
        one.momentum = momentum


def _smooth(height: int, width: int, scale: float, channels: int = 3) -> Any:
    """Made-up pictures (PICTURES, channels, height, width), float64: coarse noise, smooth as photos are."""
    import torch

    coarse = scale * torch.randn(PICTURES, channels, 8, 8, dtype=torch.float64)
    return torch.nn.functional.interpolate(coarse, (height, width), mode="bilinear", align_corners=False)


def _compact(base: Source, work: Path, seed: int) -> Drawn:
    from safetensors.numpy import save

    from graftwork.backbones.compact import weights
    from graftwork.networks import CompactConfig, CompactNet

    config = CompactConfig.from_json(base.json("config.json")["network"])
    with _seeded(seed):
        made = CompactNet(config, classes=1)
        pixels = (0.5 + _smooth(config.size, config.size, 0.2, config.channels)).clamp(0, 1)
        _settle(made, lambda: made.features(pixels))
    (work / "model.safetensors").write_bytes(save(weights(made)))
    return ("model.safetensors",), {}


def _keras(base: Source, work: Path, seed: int) -> Drawn:
    """Kernels by He's rule; Keras's own for depthwise ones shrinks every layer by the number of channels."""
    from graftwork.backbones.keras import network, preprocess_input
    from graftwork.sources.keras import library

    rng = np.random.default_rng(seed)
    size = base.options["size"]
    model = network(base.options["architecture"], size, None)
    for variable in model.weights:
        shape = tuple(variable.shape)
        if len(shape) > 1:
            inputs = shape[:2] if len(shape) == 4 and shape[-1] == 1 else shape[:-1]
            variable.assign(rng.normal(size=shape).astype(np.float32) * np.sqrt(2 / np.prod(inputs)))
    for number, layer in enumerate(model.layers):
        layer.name = f"layer_{number}"  # its own counts what this process built before, and is in the file
        if hasattr(layer, "momentum"):
            layer.momentum = 0.0  # as in `_settle`
        if hasattr(layer, "rate"):
            layer.rate = 0.0
    coarse = rng.integers(0, 256, (PICTURES, 8, 8, 3)).astype(np.float32)
    index = np.arange(size) * 8 // size
    import torch

    with library().device("cpu"), torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras converts its numbers in a way that NumPy 2 calls old
        prepare = preprocess_input(base.options["architecture"])
        model(prepare(torch.from_numpy(coarse[:, index][:, :, index])), training=True)
        model.save_weights(work / "model.weights.h5")
    return ("model.weights.h5",), {}


def _words(base: Source, work: Path, seed: int) -> Drawn:
    """Independent normal vectors of the trained ones' mean and spread, for the same vocabulary."""
    from graftwork.backbones.vectors import load

    known = load(base)
    rng = np.random.default_rng(seed)
    drawn = _like(np.asarray(known.matrix), rng)
    with (work / "vectors.bin").open("wb") as file:
        file.write(f"{len(known.words)} {drawn.shape[1]}\n".encode())
        for word, vector in zip(known.words, drawn, strict=True):
            file.write(word.encode("utf-8", "surrogatepass") + b" " + vector.tobytes() + b"\n")
    about = {"form": "word2vec binary", "words": len(known.words), "width": drawn.shape[1]}
    return ("vectors.bin",), about


def _onnx(base: Source, work: Path, seed: int) -> Drawn:
    """Every matrix and kernel drawn anew with its own mean and spread; a fixed mel front end stays.

    Not He-scaled: the layout of a matrix, and so its number of inputs, is the operator's affair, and
    the biases and normalisations that are kept fit weights of the trained spread.
    """
    try:
        import onnx
    except ImportError as error:
        raise RequestError(
            f"random weights of {base.name!r} need the package onnx; try: pip install onnx"
        ) from error
    rng = np.random.default_rng(seed)
    front, model = base.options.get("front"), base.options["model"]
    if front is not None:
        shutil.copyfile(base.folder / front, work / front)
    network = onnx.load(str(base.folder / model))
    count = 0
    for tensor in network.graph.initializer:
        values = onnx.numpy_helper.to_array(tensor)
        # two values are a mask or a switch, not weights
        if values.ndim > 1 and values.dtype.kind == "f" and len(np.unique(values)) > 2:
            drawn = _like(values.astype(np.float32), rng).astype(values.dtype)
            tensor.CopyFrom(onnx.numpy_helper.from_array(drawn, tensor.name))
            count += 1
    if not count:
        raise RequestError(
            f"source {base.name!r} holds no matrix of floating-point weights to draw anew; if it is "
            "quantised, use the network before it was"
        )
    (work / model).parent.mkdir(parents=True, exist_ok=True)
    onnx.save(network, str(work / model))
    return tuple(one for one in (front, model) if one is not None), {}


_DRAWN: Mapping[str, Callable[[Source, Path, int], Drawn]] = {
    "images": _transformers,
    "texts": _transformers,
    "audio": _transformers,
    "compact": _compact,
    "keras": _keras,
    "words": _words,
    "onnx": _onnx,
}
"""Family -> what writes drawn weights into a folder."""


@contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """torch draws from `seed` inside; the caller's own random numbers go on undisturbed."""
    import torch

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        yield


def _like(values: NDArray[np.float32], rng: np.random.Generator) -> NDArray[np.float32]:
    """Normal numbers of the same shape, mean and standard deviation."""
    drawn = rng.standard_normal(values.shape, dtype=np.float32)
    return np.asarray(drawn * values.std(dtype=np.float64) + values.mean(dtype=np.float64), np.float32)
