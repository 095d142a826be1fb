"""Corrections: rows that a person labelled after the model had answered, joined to what was uploaded."""

from pathlib import Path

import hostile
import pytest

from graftwork.rows import Dataset as Rows
from graftwork.service.database import tables
from graftwork.service.work import data
from tiny_shop import Shop

pytestmark = pytest.mark.usefixtures("brisk")


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    return Shop(tmp_path)


def texts(*extra: str) -> bytes:
    lines = [f"some text of the number {i},{'ab'[i % 2]},train" for i in range(12)]
    return ("text,label,split\n" + "\n".join([*lines, *extra]) + "\n").encode()


def loaded(shop: Shop, made: tables.Dataset) -> Rows:
    with shop.database.read() as session:
        given = data.corrected(session, made, shop.settings, float("inf"))
    return data.joined(data.load(made, shop.settings), given)


def labelled(rows: Rows) -> dict[str, str | None]:
    """Content -> label."""
    names = [*rows.labels, None]
    return {rows.rows.column.read(i).decode(): names[code] for i, code in enumerate(rows.target.codes)}


def test_new_texts_become_training_rows_with_labels_that_may_be_new(shop: Shop) -> None:
    made = shop.dataset(("t.csv", texts()))
    shop.correct(made, "a", text="never seen before")
    shop.correct(made, "\u202ec ", text="another one")
    rows = loaded(shop, made)
    assert (len(rows), rows.labels) == (14, ("a", "b", "c"))
    assert labelled(rows)["never seen before"] == "a" and labelled(rows)["another one"] == "c"
    assert set(rows.split.parts[-2:]) == {"train"} and rows.rows.names[-1] == "correction 2"
    assert "corrections: 2 rows were added, 0 training rows were relabelled" in rows.notes


def test_a_correction_of_a_training_row_replaces_its_label_and_the_last_one_holds(shop: Shop) -> None:
    made = shop.dataset(("t.csv", texts()))
    for label in ("c", "b"):
        shop.correct(made, label, text="some text of the number 0")
    rows = loaded(shop, made)
    assert len(rows) == 12 and labelled(rows)["some text of the number 0"] == "b"


def test_rows_that_judge_stay_as_they_were_given(shop: Shop) -> None:
    made = shop.dataset(("t.csv", texts("held for judging,a,test", "also held,b,validation")))
    before = loaded(shop, made)
    shop.correct(made, "b", text="held for judging")
    shop.correct(made, "a", text="also held")
    after = loaded(shop, made)
    assert labelled(after) == labelled(before) and after.split.parts.tolist() == before.split.parts.tolist()
    assert any("2 validation or test rows were left out" in note for note in after.notes)


def test_pictures_join_by_their_content_from_single_files_folders_and_parquet(
    shop: Shop, tmp_path: Path
) -> None:
    import io

    import pyarrow as pa
    import pyarrow.parquet as pq

    pictures = hostile.class_folders(4)
    cells = [{"bytes": content, "path": name} for name, content in pictures.items()]
    buffer = io.BytesIO()
    pq.write_table(pa.table({"image": cells, "label": [name[:4] for name in pictures]}), buffer)
    sets = [
        shop.dataset(("x.zip", hostile.zip_of(pictures))),
        shop.dataset(*((name.rsplit("/")[-1], content, name[:4]) for name, content in pictures.items())),
        shop.dataset(("t.parquet", buffer.getvalue())),
    ]
    for made in sets:
        assert made.state == "ready", made.problem
        shop.correct(made, "new", content=hostile.png(28))
        shop.correct(made, "new", content=pictures["dark/0.png"])
        rows = loaded(shop, made)
        assert len(rows) == 9 and "new" in rows.labels
        code = rows.labels.index("new")
        assert [rows.rows.column.read(int(i)) for i in (rows.target.codes == code).nonzero()[0]] == [
            pictures["dark/0.png"], hostile.png(28)
        ]  # fmt: skip


def test_a_fit_learns_what_was_corrected_before_it_was_asked_for_and_no_later(shop: Shop) -> None:
    made = shop.dataset(("t.csv", texts()))
    shop.correct(made, "c", text="in time, number one")
    shop.correct(made, "c", text="in time, number two")
    job_id = shop.ask("fit", made.id, strategy="classical")
    shop.correct(made, "d", text="too late")
    ended = shop.do()
    assert ended.id == job_id and ended.state == "succeeded", ended.problem
    assert shop.model(ended)[0].labels == ["a", "b", "c"]


def test_a_correction_of_another_kind_is_refused_in_one_line(shop: Shop) -> None:
    made = shop.dataset(("t.csv", texts()))
    shop.correct(made, "a", content=hostile.png())
    ended = shop.job("fit", made.id)
    assert (
        ended.problem is not None
        and "correction 1 is a file; the dataset is of text" in ended.problem["detail"]
    )
