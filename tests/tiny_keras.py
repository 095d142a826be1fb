"""Keras applications with random weights, saved in every layout in which such files go about."""

from pathlib import Path
from typing import Any

import numpy as np

from graftwork.sources.keras import architectures, library


def model(architecture: str, seed: int = 0, **asked: Any) -> Any:
    """The application with He-scaled random kernels and BatchNorm statistics of a trained network's kind."""
    rng = np.random.default_rng(seed)
    with library().device("cpu"):
        made = architectures()[architecture](weights=None, **asked)
    for variable in made.weights:
        shape = tuple(variable.shape)
        if len(shape) > 1:
            inputs = shape[:2] if shape[-1] == 1 else shape[:-1]
            variable.assign(rng.normal(size=shape) * np.sqrt(2 / np.prod(inputs)))
        elif shape:
            variable.assign(rng.uniform(0.5, 1.5, shape))
    return made


def save(made: Any, path: Path) -> Path:
    """In the layout that the name asks for; "legacy" in it for the older layout of weights alone."""
    import warnings

    import h5py
    from keras.src.legacy.saving import legacy_h5_format

    path.parent.mkdir(parents=True, exist_ok=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        if path.name.endswith(".weights.h5"):
            made.save_weights(path)
        elif "legacy" in path.name:
            with h5py.File(path, "w") as file:
                legacy_h5_format.save_weights_to_hdf5_group(file, made)
        else:
            made.save(path)
    return path


def predicted(made: Any, architecture: str, pixels: Any) -> Any:
    """Keras's own answer for (rows, size, size, 3) bytes, flattened to (rows, width)."""
    import sys
    import warnings

    prepare = sys.modules[architectures()[architecture].__module__].preprocess_input
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Keras converts its answer in a way that NumPy 2 calls old
        answer = made.predict(prepare(pixels.astype(np.float32)), verbose=0)
    return np.asarray(answer).reshape(len(pixels), -1)
