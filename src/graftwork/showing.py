"""What a report shows of single rows: the worst mistakes and a map of the features."""

import io
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray

from graftwork.backbones.base import labelled_matrix
from graftwork.errors import Unreadable
from graftwork.images import decode
from graftwork.model import Model
from graftwork.records import FeatureMap, Mistake
from graftwork.rows import Dataset, IntArray, Rows

MISTAKES = 12
THUMBNAIL = 160
TEXT = 400
MAP_ROWS = 2000
COMPONENTS = 50


def mistakes(dataset: Dataset, index: IntArray, probabilities: NDArray[np.float64]) -> tuple[Mistake, ...]:
    """The wrong answers given with the greatest confidence, most confident first.

    index: (rows,) positions in the dataset; probabilities: (rows, classes).
    """
    truth, answer = dataset.target.codes[index], probabilities.argmax(1)
    confidence = probabilities.max(1)
    wrong = np.flatnonzero(truth != answer)
    worst = wrong[np.argsort(-confidence[wrong], kind="stable")][:MISTAKES]
    return tuple(
        Mistake(
            name=dataset.rows.names[index[i]],
            truth=dataset.labels[truth[i]],
            answer=dataset.labels[answer[i]],
            probability=float(confidence[i]),
            picture=_thumbnail(dataset.rows, int(index[i])),
            text=_text(dataset.rows, int(index[i])),
        )
        for i in worst
    )


def feature_map(
    model: Model,
    learnt: Rows,
    codes: IntArray,
    dataset: Dataset,
    index: IntArray,
    probabilities: NDArray[np.float64],
) -> FeatureMap:
    """Held rows on the two directions that best part the classes, as found on the learnt rows.

    Linear discriminant directions (Fisher) of the first principal components, the spread within
    classes shrunk after Ledoit and Wolf; with two classes the second axis is the next direction.
    """
    from sklearn.utils.extmath import randomized_svd

    some = _sample(len(learnt))
    known = labelled_matrix(model.backbone, learnt.take(some)).astype(np.float64)
    mean = known.mean(0)
    _, _, basis = randomized_svd(known - mean, min(COMPONENTS, *known.shape), random_state=0)
    shown = _sample(len(index))
    held = labelled_matrix(model.backbone, dataset.rows.take(index[shown])).astype(np.float64)
    axes = (held - mean) @ basis.T @ _directions((known - mean) @ basis.T, codes[some])
    right = dataset.target.codes[index] == probabilities.argmax(1)
    return FeatureMap(
        x=tuple(map(float, axes[:, 0])),
        y=tuple(map(float, axes[:, -1])),
        codes=tuple(map(int, dataset.target.codes[index[shown]])),
        right=tuple(map(bool, right[shown])),
        method="discriminant directions of the training rows",
    )


def _directions(points: NDArray[np.float64], codes: IntArray) -> NDArray[np.float64]:
    """(width, 1 or 2) directions with the greatest spread between classes for their spread within."""
    from scipy.linalg import eigh
    from sklearn.covariance import ledoit_wolf

    centres = np.stack([points[codes == code].mean(0) for code in np.unique(codes)])
    inside = points - centres[np.searchsorted(np.unique(codes), codes)]
    within = ledoit_wolf(inside, assume_centered=True)[0]
    # rows that are all alike have no spread within; the axes themselves are as good as any then
    floor = 1e-6 * max(np.trace(np.cov(points.T, bias=True).reshape(len(within), -1)), 1e-12)
    between = np.cov(centres.T, bias=True).reshape(len(within), -1)
    _, vectors = eigh(between, within + floor * np.eye(len(within)))
    return np.asarray(vectors[:, ::-1][:, :2], dtype=np.float64)


def _sample(count: int) -> IntArray:
    """At most MAP_ROWS positions, evenly spread, so that no class at the end is lost."""
    return np.unique(np.linspace(0, count - 1, min(count, MAP_ROWS)).astype(np.int64))


def _thumbnail(rows: Rows, i: int) -> bytes | None:
    if rows.kind != "image":
        return None
    with suppress(Unreadable):  # the file may have gone since it was answered; its name is still shown
        picture = decode(rows.column.read(i), at_least=THUMBNAIL)
        small = max(picture.size) < THUMBNAIL // 2
        if small:
            # a picture of 8 by 8 pixels is enlarged without smoothing, so that one sees what was seen
            scale = THUMBNAIL // max(picture.size)
            picture = picture.resize((picture.width * scale, picture.height * scale), 0)
        picture.thumbnail((THUMBNAIL, THUMBNAIL))
        buffer = io.BytesIO()
        picture.save(buffer, "PNG" if small else "JPEG")
        return buffer.getvalue()
    return None


def _text(rows: Rows, i: int) -> str | None:
    if rows.kind != "text":
        return None
    text = rows.column.read(i).decode("utf-8", "replace")
    return text if len(text) <= TEXT else text[: TEXT - 1] + "…"
