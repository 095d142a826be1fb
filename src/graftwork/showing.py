"""What a report shows of single rows: the worst mistakes and a map of the features."""

import io
from contextlib import suppress
from functools import cache

import numpy as np
from numpy.typing import NDArray

from graftwork import images
from graftwork.backbones.base import labelled_matrix
from graftwork.errors import Unreadable
from graftwork.model import Model
from graftwork.records import FeatureMap, Mistake
from graftwork.rows import Dataset, IntArray, Rows

MISTAKES = 12
THUMBNAIL = 160
TEXT = 400
SOUND_SECONDS = 4.0
"""So much of a recording's beginning is drawn and can be played."""
SOUND_RATE = 16_000
DRAWING = (400, 64, 136)
"""Width, height of the waveform, height of the spectrogram, in pixels."""
DECIBELS = 50.0
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
    found = []
    for i in worst:
        picture, text, sound = _shown(dataset.rows, int(index[i]))
        found.append(
            Mistake(
                name=dataset.rows.names[index[i]],
                truth=dataset.labels[truth[i]],
                answer=dataset.labels[answer[i]],
                probability=float(confidence[i]),
                picture=picture,
                text=text,
                sound=sound,
            )
        )
    return tuple(found)


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


def _shown(rows: Rows, i: int) -> tuple[bytes | None, str | None, bytes | None]:
    """(picture, text, sound) of row i; only its name where its file has gone since it was answered."""
    with suppress(Unreadable):
        match rows.kind:
            case "image":
                return _thumbnail(rows.column.read(i)), None, None
            case "text":
                text = rows.column.read(i).decode("utf-8", "replace")
                return None, text if len(text) <= TEXT else text[: TEXT - 1] + "…", None
            case "audio":
                return _heard(rows, i)
    return None, None, None


def _thumbnail(content: bytes) -> bytes:
    picture = images.decode(content, at_least=THUMBNAIL)
    small = max(picture.size) < THUMBNAIL // 2
    if small:
        # a picture of 8 by 8 pixels is enlarged without smoothing, so that one sees what was seen
        scale = THUMBNAIL // max(picture.size)
        picture = picture.resize((picture.width * scale, picture.height * scale), 0)
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    buffer = io.BytesIO()
    picture.save(buffer, "PNG" if small else "JPEG")
    return buffer.getvalue()


def _heard(rows: Rows, i: int) -> tuple[bytes, None, bytes]:
    from graftwork import sounds

    with rows.column.open(i) as file:
        rate = min(sounds.look(file).rate, SOUND_RATE)
        samples = sounds.decode(file, rate, most=SOUND_SECONDS)
    return drawing(samples, rate), None, sounds.encode(samples, rate)


def drawing(samples: NDArray[np.float32], rate: int) -> bytes:
    """Waveform above mel spectrogram of mono samples (n,) in -1..1, as a PNG for light and dark pages.

    The waveform is scaled to its peak; the spectrogram shows the loudest 50 decibels, low tones below.
    """
    from PIL import Image

    from graftwork.backbones.logmel import spectrogram

    width, above, below = DRAWING
    levels = spectrogram(samples, rate).T[::-1]
    strength = np.clip(1 + (levels - levels.max()) / DECIBELS, 0, 1)
    spectrum = Image.fromarray((255 * strength).astype(np.uint8)).resize((width, below), 1)
    # both share a palette of 2 x 64 colours with an opacity each, which makes a small file
    pixels = np.vstack([64 + 63 * _waveform(samples, width, above), np.asarray(spectrum) // 4])
    picture = Image.fromarray(pixels.astype(np.uint8), "P")
    colours, opacities = _palette()
    picture.putpalette(colours)
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True, transparency=opacities)
    return buffer.getvalue()


def _waveform(samples: NDArray[np.float32], width: int, height: int) -> NDArray[np.float64]:
    """(height, width) share of each pixel that the waveform covers: from its lowest to its highest there."""
    edges = np.linspace(0, len(samples), width + 1)
    starts = np.minimum(edges[:-1].astype(np.int64), len(samples) - 1)
    high, low = np.maximum.reduceat(samples, starts), np.minimum.reduceat(samples, starts)
    scale = (height / 2 - 2) / max(float(np.abs(samples).max()), 1e-3)
    top, bottom = height / 2 - scale * high - 0.5, height / 2 - scale * low + 0.5
    rows = np.arange(height)[:, None]
    return np.asarray(np.clip(np.minimum(rows + 1, bottom) - np.maximum(rows, top), 0, 1))


@cache
def _palette() -> tuple[bytes, bytes]:
    """(red, green, blue of each colour, opacity of each): 64 of the spectrogram, 64 of the waveform."""
    stops = np.array([[86, 180, 233, 0], [40, 110, 190, 150], [126, 60, 150, 230], [226, 92, 60, 255]])
    share = np.linspace(0, len(stops) - 1, 64)
    ramp = np.stack([np.interp(share, np.arange(len(stops)), channel) for channel in stops.T], axis=1)
    wave = np.column_stack([np.tile([40, 124, 196], (64, 1)), np.linspace(0, 255, 64)])
    colours = np.vstack([ramp, wave]).round().astype(np.uint8)
    return colours[:, :3].tobytes(), colours[:, 3].tobytes()
