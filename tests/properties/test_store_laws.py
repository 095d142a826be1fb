"""Laws of the store: what it hands out equals what would be computed, whatever was asked before."""

import tempfile
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

import toys
from graftwork import segments, store
from graftwork.rows import Rows, Texts
from graftwork.segments import Shelf
from graftwork.store import Stored

contents = st.lists(st.text(alphabet="abc好", max_size=3), max_size=12)


def rows(values: list[str]) -> Rows:
    return Rows([f"row {i}" for i in range(len(values))], {"text": Texts(values)})


@settings(max_examples=40, deadline=None)
@given(st.lists(contents, max_size=6), st.booleans())
def test_stored_features_equal_fresh_ones_and_each_content_is_computed_once(
    calls: list[list[str]], forget: bool
) -> None:
    backbone = toys.ToyBackbone()
    with tempfile.TemporaryDirectory() as folder:
        for values in calls:
            if forget:
                store._open.clear()
            found = Stored(backbone, Path(folder)).features(rows(values))
            fresh = toys.ToyBackbone().features(rows(values))
            assert np.array_equal(found.matrix, fresh.matrix)
            assert found.extraction.computed + found.extraction.reused == len(values)
    assert sum(map(len, backbone.asked)) == len({value for values in calls for value in values})


@settings(max_examples=40, deadline=None)
@given(contents, st.randoms(use_true_random=False))
def test_the_order_of_rows_permutes_answers(values: list[str], random: object) -> None:
    order = np.array(sorted(range(len(values)), key=lambda _: random.random()), dtype=np.int64)  # type: ignore[attr-defined]
    with tempfile.TemporaryDirectory() as folder:
        stored = Stored(toys.ToyBackbone(), Path(folder))
        straight = stored.features(rows(values)).matrix
        turned = stored.features(rows(values).take(order)).matrix
    assert np.array_equal(straight[order], turned)


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 20), st.data())
def test_no_damaged_byte_is_ever_handed_out(count: int, data: st.DataObject) -> None:
    values = [f"text {i}" for i in range(count)]
    fresh = toys.ToyBackbone().features(rows(values)).matrix
    with tempfile.TemporaryDirectory() as folder:
        Stored(toys.ToyBackbone(), Path(folder)).features(rows(values))
        (path,) = segments.files(Path(folder) / toys.ToyBackbone().fingerprint)
        content = bytearray(path.read_bytes())
        content[data.draw(st.integers(0, len(content) - 1))] ^= data.draw(st.integers(1, 255))
        path.write_bytes(content)
        store._open.clear()
        assert np.array_equal(Stored(toys.ToyBackbone(), Path(folder)).features(rows(values)).matrix, fresh)


@settings(max_examples=40, deadline=None)
@given(st.lists(st.lists(st.integers(0, 30), min_size=1, max_size=8), min_size=1, max_size=40))
def test_a_shelf_holds_exactly_what_was_put(puts: list[list[int]]) -> None:
    def key(i: int) -> np.ndarray:
        return np.frombuffer(i.to_bytes(8, "big") * 4, np.uint8)

    with tempfile.TemporaryDirectory() as folder:
        shelf = Shelf(Path(folder) / "one")
        for numbers in puts:
            keys = np.stack([key(i) for i in numbers])
            shelf.put_many(keys, np.array([[i, 2 * i] for i in numbers], np.float32), {})
        every = np.stack([key(i) for i in range(40)])
        out = np.full((40, 2), -1, np.float32)
        found = shelf.get_many(every, out, np.arange(40))
        held = {i for numbers in puts for i in numbers}
        assert set(np.flatnonzero(found).tolist()) == held
        assert all(out[i].tolist() == [i, 2 * i] for i in held)
        assert (out[~found] == -1).all()
        assert len(segments.files(Path(folder) / "one")) < segments.SMALL_FILES
