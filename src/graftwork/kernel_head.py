"""A head with a Gaussian kernel: scores are weighted similarities to rows kept from the training part.

logits(x) = (sum_j exp(-|s x - z_j|^2) a_j) / temperature, z_j the kept rows (landmarks), s a scale for
each column. The coefficients a are those of kernel ridge regression .
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork.errors import ArtefactError, FeatureWidth
from graftwork.heads import check_axes

Float64 = NDArray[np.float64]
_BLOCK = 1024


@dataclass(frozen=True)
class KernelHead:
    """Built from (labels, config, arrays), the very things its `state` gives.

    arrays: columns (width,) float32, the scale of each feature, 0 where it is not used; landmarks
    (kept rows, used columns) float32, already scaled; coefficients (kept rows, classes) float64.
    config: temperature.
    """

    labels: tuple[str, ...]
    config: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]

    def __post_init__(self) -> None:
        """Raises ArtefactError where arrays, labels and config do not belong together."""
        axes = {"columns": ("width",), "landmarks": ("kept", "used"), "coefficients": ("kept", "classes")}
        check_axes("kernel", axes, self.arrays, len(self.labels))
        used, sharpness = int(np.count_nonzero(self.arrays["columns"])), self.config.get("temperature")
        if self.arrays["landmarks"].shape[1] != used or not isinstance(sharpness, int | float):
            raise ArtefactError(
                f"a kernel head of {used} used columns and temperature {sharpness!r} holds landmarks of "
                f"shape {self.arrays['landmarks'].shape}; restore a copy of the artefact or fit it again"
            )

    @property
    def width(self) -> int:
        return len(self.arrays["columns"])

    def logits(self, features: NDArray[np.float32]) -> Float64:
        """(rows, width) -> (rows, classes) float64, temperature applied; raises FeatureWidth."""
        if features.ndim != 2 or features.shape[1] != self.width:
            raise FeatureWidth(self.width, int(np.prod(features.shape[1:])))
        out = np.empty((len(features), len(self.labels)))
        for start in range(0, len(features), _BLOCK):
            block = scaled(features[start : start + _BLOCK], self.arrays["columns"])
            similar = gaussian(block, self.arrays["landmarks"])
            out[start : start + _BLOCK] = similar @ self.arrays["coefficients"]
        return out / float(self.config["temperature"])

    def state(self) -> tuple[str, Mapping[str, Any], Mapping[str, NDArray[Any]]]:
        """("kernel", config, arrays): enough to build the head again."""
        return "kernel", dict(self.config), dict(self.arrays)


def scaled(features: NDArray[np.float32], columns: NDArray[np.float32]) -> NDArray[np.float32]:
    """The used columns of (rows, width), times their scale."""
    used = np.flatnonzero(columns)
    # choosing columns lays a matrix out by column, a file by row: sums must not depend on which it was
    return np.ascontiguousarray(features[:, used] * columns[used], dtype=np.float32)


def gaussian(rows: NDArray[np.float32], landmarks: NDArray[np.float32]) -> Float64:
    """exp(-squared distance): (rows, landmarks), computed in float64."""
    return np.asarray(np.exp(-squared_distances(rows, landmarks)))


def squared_distances(rows: NDArray[np.float32], others: NDArray[np.float32]) -> Float64:
    """Squared Euclidean distances (rows, others), never below zero."""
    a, b = rows.astype(np.float64), others.astype(np.float64)
    distances = -2 * (a @ b.T)
    distances += (a**2).sum(axis=1)[:, None]
    distances += (b**2).sum(axis=1)
    return np.maximum(distances, 0.0, out=distances)
