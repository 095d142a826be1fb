"""Keras applications as frozen backbones: Keras's own network and preprocess_input, run by the engine.

A picture is stretched to the architecture's square, as Keras's recipes do
(`image_dataset_from_directory(image_size=(224, 224))`); resize crop and fit keep its proportions.
"""

import sys
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np
import PIL
from numpy.typing import NDArray

from graftwork.backbones import engine
from graftwork.backbones.base import BackboneState, Options
from graftwork.backbones.images import Images
from graftwork.backbones.pretrained import on_this_machine
from graftwork.errors import ArtefactError, RequestError
from graftwork.records import Notify
from graftwork.rows import Rows
from graftwork.sources import Source
from graftwork.sources.keras import architectures, library, library_version

if TYPE_CHECKING:
    from graftwork.backbones.cutting import Parted

POOLINGS = {"auto": "avg", "avg": "avg", "mean": "avg", "pooled": "avg", "max": "max", "flatten": "flatten"}
"""auto: the average over the last layer's positions. flatten: all of them (25,088 numbers from VGG16)."""
RESIZES = ("stretch", "crop", "fit")
_FILL = (124, 116, 104)
"""What lies around a picture that is fitted whole: the mean colour that most applications subtract."""
_BILINEAR = 2


class Application(Images):
    """Frozen network of keras.applications without its classifier."""

    family: ClassVar[str] = "keras"
    version: ClassVar[int] = 1
    reader: ClassVar[str] = f"pillow {PIL.__version__}"

    def _key(self) -> Mapping[str, Any]:
        return {
            "weights": self.source.weights_sha256,
            "options": dict(self.source.options),
            "pooling": self.config["pooling"],
            "size": [self.framing.height, self.framing.width],
            # the network is not among the source's files: it is Keras's code
            "keras": ".".join(library_version().split(".")[:2]),
        }

    def _build(self) -> Any:
        from graftwork.backbones.keras_network import KerasNetwork, blocks

        self.source.verify()
        model = self._model()
        load(model, self.source)
        return KerasNetwork(library(), model, self._prepared, blocks(model)).eval()

    def _model(self) -> Any:
        """Its Keras model, with weights that mean nothing yet."""
        options, pooling = self.source.options, self.config["pooling"]
        return network(options["architecture"], options["size"], None if pooling == "flatten" else pooling)

    @property
    def _prepared(self) -> Any:
        return preprocess_input(self.source.options["architecture"])

    @cached_property
    def _blocks(self) -> tuple[str, ...]:
        from graftwork.backbones.keras_network import blocks, full_names

        return full_names(blocks(self._model()))

    def parted(self, block: str) -> "Parted":
        from graftwork.backbones.keras_network import parted

        return parted(library(), self.network().model, block, self.source.name)

    def before(self, block: str) -> Any:
        from graftwork.backbones.keras_network import before

        return before(library(), self.network().model, self._prepared, block)


def open_source(source: Source, sample: Rows | None, options: Options, notify: Notify) -> Application:
    """The backbone of a Keras source; `sample` rows decide which path this machine takes, once."""
    runtime = engine.check_runtime(options.runtime)
    pooling = "auto" if options.pooling is None else options.pooling
    resize = "stretch" if options.resize is None else options.resize
    if pooling not in POOLINGS:
        raise RequestError(f"no pooling {pooling!r} for Keras; expected one of {', '.join(POOLINGS)}")
    if resize not in RESIZES:
        raise RequestError(f"no resize {resize!r} for Keras; expected one of {', '.join(RESIZES)}")
    size = source.options["size"]
    framing = {
        "height": size,
        "width": size,
        "resize": size if resize == "crop" else [size, size],
        "resample": _BILINEAR,
        "fit": resize == "fit",
        "fill": list(_FILL),
    }
    config = {"pooling": POOLINGS[pooling], "preprocessing": {"framing": framing}}
    bare = Application(source, config)
    return Application(source, bare.settled(sample, runtime, notify))


def restore(state: BackboneState) -> Application:
    """A saved backbone, with the path it was saved with where this machine can take it."""
    if state.source is None:
        raise ArtefactError("this Keras backbone names no source; restore the artefact from a copy")
    saved = Application(state.source, state.config, state.arrays)
    return replace(saved, config=on_this_machine(saved))


def network(architecture: str, size: int, pooling: str | None) -> Any:
    """The application without its classifier, on the processor, with weights that mean nothing yet."""
    keras = library()
    with keras.device("cpu"):
        return architectures()[architecture](
            weights=None, include_top=False, input_shape=(size, size, 3), pooling=pooling
        )


def preprocess_input(architecture: str) -> Any:
    """The application's own preparation: RGB numbers 0..255 in, what its network takes out."""
    return sys.modules[architectures()[architecture].__module__].preprocess_input


def load(model: Any, source: Source) -> None:
    """The source's weights into the model; a classifier that the file holds besides is left out.

    Raises ArtefactError where the file is damaged or belongs to another architecture.
    """
    path = source.folder / source.weights[0]
    for variable in model.weights:
        variable.assign(np.full(variable.shape, np.nan, np.float32))  # shows below what the file lacked
    try:
        with library().device("cpu"), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # what it passes over is found below
            if path.name.lower().endswith((".weights.h5", ".keras")):
                model.load_weights(path)  # of an archive the arrays alone are read: no code, no config
            else:
                _load_by_order(model, path)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, zipfile.BadZipFile) as error:
        # of several sentences of Keras's the first says what is wrong
        reason = " ".join(str(error).split()).partition(". ")[0][:200]
        raise ArtefactError(
            f"{path} does not hold the weights of {source.options['architecture']} ({reason}); fetch it "
            "again, or name the architecture that it was saved from"
        ) from error
    lacking = [one.path for one in model.weights if not np.isfinite(_values(one)).all()]
    if lacking:
        raise ArtefactError(f"{path} lacks numbers for {lacking[0]} of {source.options['architecture']}")
    if source.options["scaled_twice"]:
        _scale_twice(model)
    for layer in model.layers:
        if hasattr(layer, "finalize_state"):
            layer.finalize_state()


def _load_by_order(model: Any, path: Path) -> None:
    """The older layout of .h5: layers in the model's order, the classifier last.

    Keras itself refuses a file with more layers than the model has.
    """
    import h5py

    layers = [layer for layer in model.layers if layer.weights]
    with h5py.File(path, "r") as file:
        whole = "layer_names" not in file.attrs and "layer_names0" not in file.attrs
        group = _own(file, "model_weights") if whole else file
        names = iter(_listed(group, "layer_names"))
        for number, layer in enumerate(layers):
            arrays = next((found for name in names if (found := _arrays(_own(group, name)))), [])
            variables = [*layer.trainable_weights, *layer.non_trainable_weights]
            seen, wanted = [array.shape for array in arrays], [tuple(one.shape) for one in variables]
            if seen != wanted:
                raise ValueError(f"its layer {number} has shapes {seen}, {layer.name} takes {wanted}")
            for variable, array in zip(variables, arrays, strict=True):
                variable.assign(array)


def _arrays(group: Any) -> Sequence[NDArray[Any]]:
    return [np.asarray(_own(group, name)) for name in _listed(group, "weight_names")]


def _own(group: Any, path: str) -> Any:
    """A member of an HDF5 group, itself in the file: no link may lead to other files of this machine."""
    import h5py

    found = group
    for part in path.split("/"):
        if not isinstance(found.get(part, getlink=True), h5py.HardLink):
            raise ValueError(f"it has no {path!r} of its own")
        found = found[part]
    if isinstance(found, h5py.Dataset) and found.external:
        raise ValueError(f"its {path!r} lies in another file")
    return found


def _listed(group: Any, key: str) -> list[str]:
    """A list of names in a group's attributes, which Keras splits into key0, key1, ... when it is long."""
    parts = [key] if key in group.attrs else []
    while f"{key}{len(parts)}" in group.attrs:
        parts.append(f"{key}{len(parts)}")
    return [name.decode() if isinstance(name, bytes) else str(name) for p in parts for name in group.attrs[p]]


def _scale_twice(model: Any) -> None:
    """Divide the normalised input by sqrt(std) once more (see `sources.keras`), folded into the variance."""
    layer = next(layer for layer in model.layers if type(layer).__name__ == "Normalization")
    variance = layer.weights[1]
    variance.assign(_values(variance) * np.array([0.229, 0.224, 0.225], np.float32))


def _values(variable: Any) -> NDArray[np.float32]:
    return np.asarray(variable.value.detach().cpu().numpy())
