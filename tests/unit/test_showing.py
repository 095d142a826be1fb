"""What a report shows of single rows."""

import io

import numpy as np
from PIL import Image

import toys
from graftwork import load, showing
from graftwork.model import Model
from graftwork.rows import Dataset

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
