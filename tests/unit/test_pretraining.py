"""`pretrain`: writes a source that opens, says what it saw, and leaves nothing half-written."""

from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from graftwork import pretraining as module
from graftwork.backbones.compact import open_compact
from graftwork.errors import RequestError
from graftwork.pretraining import pretrain
from graftwork.rows import UNLABELLED, Contents, Dataset, Rows, Split, Target, Texts
from graftwork.seen import seen_rows
from graftwork.training import Plan


@pytest.fixture(autouse=True)
def few_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "plan_for", lambda *_, seed, held: Plan(epochs=3, batch=16, seed=seed))


def drawing(code: int, rng: np.random.Generator) -> bytes:
    pixels = rng.integers(0, 20, (16, 16), dtype=np.uint8)
    high, wide = (10, 2) if code == 0 else (2, 10)
    pixels[3 : 3 + high, 3 : 3 + wide] = 230
    out = BytesIO()
    Image.fromarray(pixels).save(out, "PNG")
    return out.getvalue()


def drawings(n: int = 60, test: int = 20) -> Dataset:
    rng = np.random.default_rng(0)
    codes = (np.arange(n) % 2).astype(np.int64)
    rows = Rows([str(i) for i in range(n)], {"image": Contents("image", [drawing(c, rng) for c in codes])})
    codes[5] = UNLABELLED
    parts = np.array(["test" if i < test else "train" for i in range(n)])
    return Dataset("bars", rows, Target(codes, ("up", "flat")), Split(parts, "given"))


def test_source_opens_answers_and_tells_its_past(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "plan_for", lambda *_, seed, held: Plan(epochs=25, batch=16, seed=seed))
    data = drawings()
    source = pretrain(data, tmp_path / "bars")
    backbone = open_compact(source)
    assert np.isfinite(backbone.features(data.rows).matrix).all()
    past = source.json("config.json")["pretraining"]
    assert past["labels"] == ["up", "flat"] and past["rows"] == 40
    assert (past["part"], past["held"]) == ("test", 19)
    assert past["accuracy"] >= 0.9
    card = (source.folder / "README.md").read_text()
    assert past["digest"] in card
    assert f"accuracy {past['accuracy']:.3f} on 19 test rows" in card


def test_rows_learnt_from_are_known_again(tmp_path: Path) -> None:
    data = drawings()
    source = pretrain(data, tmp_path / "bars")
    assert seen_rows(source, data.take(data.split.index("train")).rows) == 40
    assert seen_rows(source, data.take(data.split.index("test")).rows) == 0
    (source.folder / "rows.txt").unlink()
    assert seen_rows(source, data.rows) is None


def test_same_seed_gives_the_same_weights(tmp_path: Path) -> None:
    first, again, other = (
        pretrain(drawings(), tmp_path / name, seed=seed).weights_sha256
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    )
    assert first == again != other


def test_without_a_test_part_rows_are_held_out_for_the_score(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "FEWEST_TO_HOLD_OUT", 50)
    past = pretrain(drawings(test=0), tmp_path / "bars").json("config.json")["pretraining"]
    assert past["part"] == "validation" and past["held"] > 0


def test_a_folder_in_use_texts_and_one_class_are_refused(tmp_path: Path) -> None:
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").write_text("mine")
    with pytest.raises(RequestError, match="exists already"):
        pretrain(drawings(), tmp_path / "used")
    assert (tmp_path / "used" / "file").read_text() == "mine"
    texts = Dataset(
        "t",
        Rows(["a"], {"t": Texts(["x"])}),
        Target(np.zeros(1, np.int64), ("y",)),
        Split(np.array(["train"]), "none"),
    )
    with pytest.raises(RequestError, match="pictures"):
        pretrain(texts, tmp_path / "new")
    with pytest.raises(RequestError, match="two classes"):
        pretrain(drawings().take(np.arange(20, 60, 2)), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_interruption_while_writing_leaves_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(Path, "write_bytes", interrupt)
    with pytest.raises(KeyboardInterrupt):
        pretrain(drawings(), tmp_path / "bars")
    assert not list(tmp_path.iterdir())
