"""What a report shows of single rows."""

import io

import numpy as np
import pytest
from PIL import Image

import tiny_audio
import toys
from graftwork import load, showing, sounds
from graftwork.model import Model
from graftwork.records import Mistake
from graftwork.rows import Contents, Dataset, Rows, Split, Target

LETTERS = ["aaaa", "aaab", "bbbb", "bbba", "cccc", "cccb"] * 4
LABELS = ["a", "a", "b", "b", "c", "c"] * 4


def texts() -> Dataset:
    return load([text + "." * i for i, text in enumerate(LETTERS)], labels=LABELS)


def model() -> Model:
    return Model(toys.ToyBackbone(), toys.ToyHead(("a", "b", "c"), np.zeros((toys.WIDTH, 3))))


def test_the_most_confident_mistakes_come_first_and_right_answers_never() -> None:
    data = texts()
    probabilities = np.full((24, 3), 0.1)
    probabilities[np.arange(24), data.target.codes] = 0.8
    probabilities[5] = (0.95, 0.03, 0.02)
    probabilities[9] = (0.6, 0.2, 0.2)
    found = showing.mistakes(data, np.arange(24), probabilities)
    assert [(one.name, one.truth, one.answer) for one in found] == [
        ("item 6", "c", "a"),
        ("item 10", "b", "a"),
    ]
    assert found[0].probability == 0.95 and found[0].text == "cccb....." and found[0].picture is None


def test_a_long_text_is_cut() -> None:
    data = load(["word " * 1000, "b"], labels=["a", "b"])
    (found,) = showing.mistakes(data, np.array([0]), np.array([[0.1, 0.9]]))
    assert found.text is not None and len(found.text) == showing.TEXT and found.text.endswith("…")


def test_pictures_are_small_and_tiny_ones_are_enlarged() -> None:
    pictures = [np.zeros((8, 8), np.uint8), np.zeros((900, 600, 3), np.uint8)]
    data = load(pictures, labels=["a", "b"])
    found = showing.mistakes(data, np.arange(2), np.array([[0.1, 0.9], [0.8, 0.2]]))
    sizes = [Image.open(io.BytesIO(one.picture)).size for one in found if one.picture]
    assert sizes == [(160, 160), (107, 160)]


def test_the_map_parts_classes_that_features_part() -> None:
    data = texts()
    drawn = showing.feature_map(
        model(), data.rows, data.target.codes, data, np.arange(24), np.eye(3)[data.target.codes]
    )
    points = np.column_stack([drawn.x, drawn.y])
    centres = np.stack([points[data.target.codes == code].mean(0) for code in range(3)])
    near = np.linalg.norm(points[:, None] - centres, axis=2).argmin(1)
    assert np.array_equal(near, data.target.codes) and all(drawn.right)


def test_the_map_stands_where_all_rows_are_alike() -> None:
    data = load(["same"] * 6, labels=["a", "b"] * 3)
    drawn = showing.feature_map(
        model(), data.rows, data.target.codes, data, np.arange(6), np.tile([0.9, 0.1], (6, 1))
    )
    assert np.isfinite(drawn.x).all() and np.isfinite(drawn.y).all()
    assert drawn.right == (True, False) * 3


def recordings(*contents: bytes) -> Dataset:
    rows = Rows([f"{i}.wav" for i in range(len(contents))], {"audio": Contents("audio", contents)})
    codes = np.arange(len(contents)) % 2
    return Dataset("sounds", rows, Target(codes, ("a", "b")), Split(np.full(len(contents), "test"), "given"))


def wrong(data: Dataset) -> tuple[Mistake, ...]:
    return showing.mistakes(data, np.arange(len(data)), np.eye(2)[1 - data.target.codes])


def test_recordings_are_drawn_and_can_be_played() -> None:
    long = tiny_audio.sound(14.0)
    found = wrong(recordings(sounds.encode(tiny_audio.sound(0.3), 16_000), sounds.encode(long, 44_100)))
    for one, seconds, rate in zip(found, (0.3, showing.SOUND_SECONDS), (16_000, 16_000), strict=True):
        assert one.picture is not None and one.sound is not None and one.text is None
        assert Image.open(io.BytesIO(one.picture)).size == (400, 200)
        heard = sounds.look(io.BytesIO(one.sound))
        assert (heard.rate, heard.channels) == (rate, 1)
        assert heard.seconds == pytest.approx(seconds, abs=0.01)
        assert len(one.sound) <= 2 * showing.SOUND_RATE * showing.SOUND_SECONDS + 44


def test_a_recording_of_few_samples_a_second_is_played_as_it_is() -> None:
    samples = tiny_audio.sound(0.2)
    (found,) = wrong(recordings(sounds.encode(samples, 8_000)))
    assert found.sound == sounds.encode(samples, 8_000)


def test_a_recording_that_has_gone_is_still_named() -> None:
    for one in wrong(recordings(b"no sound", b"")):
        assert one.name.endswith(".wav") and (one.picture, one.sound, one.text) == (None, None, None)


def strength(png: bytes) -> np.ndarray:
    """Opacity (200, 400) of a drawing."""
    return np.asarray(Image.open(io.BytesIO(png)).convert("RGBA"))[:, :, 3].astype(float)


def test_a_drawing_shows_when_it_is_loud_and_how_high_it_sounds() -> None:
    time = np.arange(16_000) / 16_000
    tone = np.where(time < 0.5, np.sin(2 * np.pi * 300 * time), 0.2 * np.sin(2 * np.pi * 5000 * time))
    drawn = strength(showing.drawing(tone.astype(np.float32), 16_000))
    wave, spectrum = drawn[:64], drawn[64:]
    spread = (wave > 127).sum(0)
    assert spread[:180].mean() > 55 and 8 < spread[220:].mean() < 16
    low, high = (spectrum[:, part].mean(1).argmax() for part in (slice(0, 180), slice(220, 400)))
    assert low > 100 > 40 > high


@pytest.mark.parametrize("samples", [np.zeros(5000), np.array([0.5]), np.ones(300), -np.ones(1_000_00)])
def test_silence_a_click_and_a_constant_can_be_drawn(samples: np.ndarray) -> None:
    assert np.isfinite(strength(showing.drawing(samples.astype(np.float32), 16_000))).all()
