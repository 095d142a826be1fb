"""Heads: features -> logits. Linear, nearest centroid, and a small network with one hidden layer.

Each is built from (labels, config, arrays), the very things its `state` gives, so a head that was
saved and one that was just fitted are the same object with the same answers.
"""

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from graftwork.errors import ArtefactError, FeatureWidth
from graftwork.spectrum import Float64, blocks


@dataclass(frozen=True)
class _Built(ABC):
    """What all heads share: labels, plain JSON config, arrays, and reading rows block by block."""

    labels: tuple[str, ...]
    config: Mapping[str, Any]
    arrays: Mapping[str, NDArray[Any]]
    registered: ClassVar[str]
    axes: ClassVar[Mapping[str, tuple[str, ...]]]
    """What each array's axes are: "classes", "width" or "units"."""

    def __post_init__(self) -> None:
        """Raises ArtefactError where arrays, labels and config do not belong together."""
        check_axes(self.registered, self.axes, self.arrays, len(self.labels))
        sharpness, absent = self.config.get("temperature"), self.config.get("absent", [])
        if not isinstance(sharpness, int | float) or not 0 < sharpness < np.inf:
            raise ArtefactError(f"a head of temperature {sharpness!r}, expected a number above 0; {_AGAIN}")
        known = range(len(self.labels))
        if (
            not isinstance(absent, list)
            or any(one not in known for one in absent)
            or len(absent) >= len(known)
        ):
            raise ArtefactError(f"a head that lacks the labels {absent!r} of {len(known)}; {_AGAIN}")

    @property
    @abstractmethod
    def width(self) -> int: ...

    @abstractmethod
    def block_logits(self, rows: Float64) -> Float64:
        """(n, width) float64 -> (n, classes), before the temperature."""

    def logits(self, features: NDArray[np.float32]) -> Float64:
        """(rows, width) -> (rows, classes) float64, temperature applied; raises FeatureWidth."""
        if features.ndim != 2 or features.shape[1] != self.width:
            raise FeatureWidth(self.width, int(np.prod(features.shape[1:])))
        out = np.empty((len(features), len(self.labels)))
        for rows in blocks(len(features), 1024):
            out[rows] = self.block_logits(features[rows].astype(np.float64))
        return self.calibrated(out)

    def calibrated(self, out: Float64) -> Float64:
        """Logits (rows, classes), in place, after the temperature; absent labels all but impossible."""
        out /= float(self.config["temperature"])
        absent = self.config.get("absent", [])
        if absent:
            # no training row carried the label: e^-30 of an average label, so a log-loss stays finite
            out[:, absent] = np.delete(out, absent, axis=1).mean(axis=1, keepdims=True) - 30.0
        return out

    def state(self) -> tuple[str, Mapping[str, Any], Mapping[str, NDArray[Any]]]:
        """(registered name, config, arrays): enough to build the head again."""
        return self.registered, dict(self.config), dict(self.arrays)

    def over(self, labels: tuple[str, ...]) -> Self:
        """The same head for more labels; those it was not fitted on are answered as all but impossible."""
        present = [labels.index(label) for label in self.labels]
        arrays = dict(self.arrays)
        for name, axes in self.axes.items():
            if "classes" not in axes:
                continue
            axis = axes.index("classes")
            known = np.moveaxis(self.arrays[name], axis, 0)
            spread = np.zeros((len(labels), *known.shape[1:]), known.dtype)
            spread[present] = known
            arrays[name] = np.ascontiguousarray(np.moveaxis(spread, 0, axis))
        absent = sorted(set(range(len(labels))) - set(present))
        return type(self)(labels, {**self.config, "absent": absent}, arrays)


@dataclass(frozen=True)
class LinearHead(_Built):
    """logits = (x weights + bias) / temperature.

    arrays: weights (width, classes) float32, bias (classes,) float64. config: temperature.
    """

    registered: ClassVar[str] = "linear"
    axes: ClassVar[Mapping[str, tuple[str, ...]]] = {"weights": ("width", "classes"), "bias": ("classes",)}

    @classmethod
    def of(cls, labels: tuple[str, ...], weights: Float64, bias: Float64, temperature: float = 1.0) -> Self:
        arrays: dict[str, NDArray[Any]] = {
            "weights": weights.astype(np.float32),
            "bias": np.asarray(bias, dtype=np.float64),
        }
        return cls(labels, {"temperature": float(temperature)}, arrays)

    @property
    def width(self) -> int:
        return len(self.arrays["weights"])

    def block_logits(self, rows: Float64) -> Float64:
        return np.asarray(rows @ self.arrays["weights"].astype(np.float64) + self.arrays["bias"])


@dataclass(frozen=True)
class CentroidHead(_Built):
    """Nearest class centroid, for very few labels a class.

    Rows are centred (arrays["centre"], (width,)) and, feature by feature, divided by a shrunk
    standard deviation (arrays["scale"], (width,)); metric "cosine" compares their direction with
    that of each centroid (arrays["centroids"], (classes, width), already centred and scaled),
    "distance" takes minus half the squared distance. config: metric, temperature.
    """

    registered: ClassVar[str] = "centroid"
    axes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "centre": ("width",), "scale": ("width",), "centroids": ("classes", "width")
    }  # fmt: skip

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.config.get("metric") not in ("cosine", "distance"):
            raise ArtefactError(f"a head of metric {self.config.get('metric')!r}; {_AGAIN}")

    @classmethod
    def of(
        cls,
        labels: tuple[str, ...],
        metric: str,
        centre: Float64,
        scale: Float64,
        centroids: Float64,
        temperature: float = 1.0,
    ) -> Self:
        assert metric in ("cosine", "distance")
        arrays = {"centre": centre, "scale": scale, "centroids": centroids}
        config: dict[str, Any] = {"metric": metric, "temperature": float(temperature)}
        return cls(labels, config, {name: array.astype(np.float64) for name, array in arrays.items()})

    @property
    def width(self) -> int:
        return len(self.arrays["centre"])

    def block_logits(self, rows: Float64) -> Float64:
        placed = (rows - self.arrays["centre"]) / self.arrays["scale"]
        centroids = self.arrays["centroids"]
        if self.config["metric"] == "cosine":
            return np.asarray(unit(placed) @ unit(centroids).T)
        # |x|^2 is the same for every class and drops out of the softmax
        return np.asarray(placed @ centroids.T - 0.5 * (centroids**2).sum(axis=1))


@dataclass(frozen=True)
class MLPHead(_Built):
    """One hidden layer: logits = (relu((x - centre) / scale @ hidden + hidden_bias) @ out + out_bias) / T.

    arrays: centre, scale (width,); hidden (width, units), hidden_bias (units,), out (units, classes),
    out_bias (classes,), float32. config: temperature.
    """

    registered: ClassVar[str] = "mlp"
    axes: ClassVar[Mapping[str, tuple[str, ...]]] = {
        "centre": ("width",), "scale": ("width",), "hidden": ("width", "units"), "hidden_bias": ("units",),
        "out": ("units", "classes"), "out_bias": ("classes",),
    }  # fmt: skip

    @classmethod
    def of(
        cls, labels: tuple[str, ...], arrays: Mapping[str, NDArray[Any]], temperature: float = 1.0
    ) -> Self:
        kept = {name: np.asarray(array, dtype=np.float32) for name, array in arrays.items()}
        return cls(labels, {"temperature": float(temperature)}, kept)

    @property
    def width(self) -> int:
        return len(self.arrays["centre"])

    def block_logits(self, rows: Float64) -> Float64:
        a = {name: array.astype(np.float64) for name, array in self.arrays.items()}
        hidden = np.maximum((rows - a["centre"]) / a["scale"] @ a["hidden"] + a["hidden_bias"], 0.0)
        return np.asarray(hidden @ a["out"] + a["out_bias"])


def check_axes(
    head: str, axes: Mapping[str, tuple[str, ...]], arrays: Mapping[str, NDArray[Any]], classes: int
) -> None:
    """Raise ArtefactError unless there are these arrays and no others, of shapes that fit each other."""
    sizes = {"classes": classes}
    for name in sorted(axes.keys() | arrays.keys()):
        array, wanted = arrays.get(name), axes.get(name)
        if array is None or wanted is None or array.ndim != len(wanted):
            seen = "none" if array is None else f"shape {array.shape}"
            raise ArtefactError(f"a {head} head of {classes} labels holds {name!r}: {seen}; {_AGAIN}")
        for axis, size in zip(wanted, array.shape, strict=True):
            if sizes.setdefault(axis, size) != size:
                raise ArtefactError(
                    f"a {head} head of {classes} labels holds {name!r} of shape {array.shape}, expected "
                    f"{sizes[axis]} {axis}; {_AGAIN}"
                )


_AGAIN = "restore a copy of the artefact or fit it again"


def unit(rows: Float64) -> Float64:
    """Rows divided by their length; a row of zeros stays zero."""
    return np.asarray(rows / np.maximum(np.linalg.norm(rows, axis=1, keepdims=True), 1e-12))


def temperature(logits: NDArray[Any], codes: NDArray[np.int64], weights: Float64) -> tuple[float, float]:
    """(temperature, weighted mean log-loss at it) for out-of-fold logits (rows, classes).

    Newton's method on 1 / temperature, where the loss is convex. Two rows' worth of the loss are shared
    by all classes (after Platt 1999), so that a few rows, all answered rightly, stay finite.
    """
    scores = logits.astype(np.float64)
    scores -= scores.max(axis=1, keepdims=True)
    share = weights / weights.sum()
    doubt = 2.0 / (len(codes) + 2.0)
    truth = scores[np.arange(len(codes)), codes]
    target = share @ ((1.0 - doubt) * truth + doubt * scores.mean(axis=1))
    if not scores.any():
        return 1.0, float(np.log(scores.shape[1]))
    # first guess: logits of unit size
    sharpness = 1.0 / max(float(np.sqrt(share @ (scores**2).mean(axis=1))), 1e-12)
    for _ in range(50):
        powers = np.exp(sharpness * scores)
        powers /= powers.sum(axis=1, keepdims=True)
        mean = (powers * scores).sum(axis=1)
        slope = share @ mean - target
        curvature = share @ ((powers * scores**2).sum(axis=1) - mean**2)
        step = slope / max(curvature, 1e-300)
        # never more than e-fold at once: the curvature vanishes where every row is certain
        step = float(np.clip(step, -1.7 * sharpness, 0.63 * sharpness))
        sharpness -= step
        if abs(step) < 1e-6 * sharpness or sharpness * np.abs(scores).max() < 1e-6:
            break
    losses = np.log(np.exp(sharpness * scores).sum(axis=1)) - sharpness * truth
    return 1.0 / sharpness, float(share @ losses)
