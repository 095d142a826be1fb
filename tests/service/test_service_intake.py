"""What strangers send is refused in one line; nothing is written outside its folder, no memory is taken."""

import resource
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import hostile
import pytest

from graftwork import datasets
from graftwork.errors import RequestError, WorkError
from graftwork.service.intake import archives, kinds, names, tables
from graftwork.service.intake.arrange import Sent, arrange, arranged, to_load
from graftwork.service.problems import Problem
from graftwork.service.settings import Limits

LIMITS = Limits(entries=10_000, unpacked=200_000_000, columns=2_000, cell=1_000_000)


def packed(folder: Path, content: bytes) -> Path:
    path = folder / "sent"
    path.write_bytes(content)
    return path


def refused(folder: Path, content: bytes, limits: Limits = LIMITS, room: int | None = None) -> Problem:
    """The problem of unpacking `content`; asserts that nothing was written anywhere."""
    archive = packed(folder, content)
    target = folder / "inside" / "unpacked"
    target.parent.mkdir()
    before = everything(folder)
    with pytest.raises(Problem) as caught:
        archives.unpack(archive, target, limits, room)
    assert everything(folder) == before
    said = str(caught.value)
    assert "\n" not in said and 20 < len(said) < 400 and ";" in said
    assert str(folder) not in said
    return caught.value


def everything(folder: Path) -> set[Path]:
    return set(folder.rglob("*"))


def sent(folder: Path, name: str, content: bytes, label: str | None = None, number: int = 0) -> Sent:
    path = folder / f"upload{number}"
    path.write_bytes(content)
    return Sent(path, name, label)


# Names in archives


@pytest.mark.parametrize(
    "name",
    [
        "../outside.txt",
        "dark/../../outside.txt",
        "/etc/cron.d/evil",
        "C:/windows/evil.dll",
        "c:evil",
        "..\\outside.txt",
        "dark\\0.png",
        "dark/a\x00.png",
        "dark/a\nb.png",
        "dark/\x1b[31m.png",
        "dark/photo\u202egnp.exe",
        "dark/\u2066x.png",
        "dark//a.png",
        "./dark/a.png",
        "dark/./a.png",
        "dark/CON",
        "aux.txt/a.png",
        "lpt1.png",
        "dark/" + "n" * 300 + ".png",
        "d/" * 40 + "a.png",
        "/".join("n" * 200 for _ in range(8)),
        "..",
        "",
    ],
)
def test_an_entry_whose_name_could_lead_astray_is_refused(tmp_path: Path, name: str) -> None:
    assert refused(tmp_path, hostile.zip_slip(name)).status == 422


def test_the_same_name_twice_is_refused_in_whatever_form_of_unicode(tmp_path: Path) -> None:
    files = [("caf\u00e9/a.png", b"one"), ("cafe\u0301/a.png", b"two")]
    assert "twice" in str(refused(tmp_path, hostile.zip_of(files)))


def test_a_name_that_is_a_file_and_a_folder_is_refused(tmp_path: Path) -> None:
    content = hostile.zip_of([("dark", b"file"), ("dark/a.png", b"in a folder")])
    assert "as a file and as a folder" in str(refused(tmp_path, content))


def test_names_that_differ_by_case_are_kept_apart_or_refused(tmp_path: Path) -> None:
    archive = packed(tmp_path, hostile.zip_of([("a/X.png", b"large"), ("a/x.png", b"small")]))
    try:
        archives.unpack(archive, tmp_path / "out", LIMITS)
    except Problem:  # a disk on which the two are one
        assert not (tmp_path / "out").exists()
    else:
        assert {p.name: p.read_bytes() for p in (tmp_path / "out/a").iterdir()} == {
            "X.png": b"large", "x.png": b"small"
        }  # fmt: skip


# Kinds of entries


@pytest.mark.parametrize(
    ("content", "word"),
    [
        (hostile.zip_symlink, "link"),
        (hostile.zip_special, "no plain file"),
        (hostile.encrypted, "encrypted"),
        (hostile.zip_bomb, "would"),
        (hostile.lying_sizes, "cannot be unpacked"),
        (hostile.short_entry, "cannot be unpacked"),
        (hostile.overlapping, "overlap"),
        (hostile.truncated_zip, "cannot be unpacked"),
        (lambda: b"PK\x03\x04 and then nothing of the kind", "cannot be unpacked"),
        (lambda: hostile.zip_of({}), "no files"),
        (lambda: hostile.zip_of({"__MACOSX/._a.png": b"x", ".DS_Store": b"x"}), "no files"),
        (lambda: hostile.zip_of(hostile.class_folders(1), method=12), "method 12"),
        (lambda: hostile.zip_of(hostile.class_folders(1), method=14), "method 14"),
    ],
)
def test_an_archive_that_lies_or_holds_what_no_dataset_does_is_refused(
    tmp_path: Path, content: Callable[[], bytes], word: str
) -> None:
    assert word in str(refused(tmp_path, content()))


@pytest.mark.parametrize("content", [hostile.million_entries, hostile.million_behind_a_lie])
def test_too_many_entries_are_refused_from_the_directory_in_little_memory(
    tmp_path: Path, content: Callable[[], bytes]
) -> None:
    archive = packed(tmp_path, content())
    tracemalloc.start()
    try:
        with pytest.raises(Problem, match="10,000 entries"):
            archives.unpack(archive, tmp_path / "out", LIMITS)
        assert tracemalloc.get_traced_memory()[1] < 10_000_000
    finally:
        tracemalloc.stop()


def test_a_bomb_takes_no_memory_and_no_disk(tmp_path: Path) -> None:
    """Small enough to pass by its size and ratio: still no more is written than was promised."""
    content = hostile.lying_sizes(declared=40_000_000)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(tmp_path, content, Limits(ratio=10_000))
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 60_000  # kB


def test_what_unpacks_to_more_than_the_limit_or_the_quota_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    content = hostile.zip_of({f"dark/{i}.png": bytes(1_000_000) for i in range(5)})
    small = Limits(unpacked=3_000_000)
    assert "send it in parts" in str(refused(tmp_path, content, small))
    (tmp_path / "again").mkdir()
    problem = refused(tmp_path / "again", content, room=4_000_000)
    assert (problem.status, problem.code) == (429, "quota-exceeded")


def test_a_full_disk_is_work_that_failed_and_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = packed(tmp_path, hostile.zip_of(hostile.class_folders(2)))

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(archives, "_write", full)
    with pytest.raises(WorkError, match="disk of the service is full"):
        archives.unpack(archive, tmp_path / "out", LIMITS)
    assert everything(tmp_path) == {archive}


def test_an_archive_inside_an_archive_stays_one_file(tmp_path: Path) -> None:
    archive = packed(tmp_path, hostile.nested())
    archives.unpack(archive, tmp_path / "out", LIMITS)
    assert (tmp_path / "out/dark/inner.zip").is_file()
    assert not list((tmp_path / "out/dark").glob("inner*/"))


# Honest archives


def test_class_folders_in_an_archive_load_as_they_would_from_a_folder(tmp_path: Path) -> None:
    junk = {"__MACOSX/flowers/._0.png": b"x", "flowers/.DS_Store": b"x", "flowers/dark/Thumbs.db": b"x"}
    content = hostile.zip_of({**hostile.class_folders(4, top="flowers/"), **junk})
    done = arrange([sent(tmp_path, "flowers.zip", content)], tmp_path / "data", LIMITS)
    path, read = to_load(tmp_path / "data", done.at, False)
    data = datasets.load(path, confined=True)
    assert (data.kind, len(data), data.labels, read) == ("image", 8, ("dark", "light"), [])
    assert sorted(data.rows.names)[0] == "dark/0.png"
    assert "3 files that systems leave" in done.notes[0]


def test_a_dataset_counts_the_bytes_that_it_shares_with_uploads(tmp_path: Path) -> None:
    table = sent(tmp_path, "t.csv", b"text,label\na,b\nc,d\n")
    assert arrange([table], tmp_path / "table", LIMITS).bytes == 19
    picture = sent(tmp_path, "a.png", b"x" * 100, "a", 1)
    files = [picture, Sent(picture.path, "b.png", "b"), sent(tmp_path, "c.png", b"y" * 10, "b", 2)]
    assert arrange(files, tmp_path / "files", LIMITS, room=110).bytes == 110
    with pytest.raises(Problem, match="of your quota are free") as caught:
        arrange(files, tmp_path / "more", LIMITS, room=109)
    assert caught.value.code == "quota-exceeded"


def test_chinese_names_come_out_as_they_were_written(tmp_path: Path) -> None:
    for number, content in enumerate(
        [hostile.gbk_names(), hostile.zip_of({"猫咪/1.png": b"x", "小狗/1.png": b"y"})]
    ):
        place = tmp_path / str(number)
        place.mkdir()
        archives.unpack(packed(place, content), place / "out", LIMITS)
        assert {path.name for path in (place / "out").iterdir()} == {"猫咪", "小狗"}


def test_tables_in_an_archive_load_as_they_would_from_a_folder(tmp_path: Path) -> None:
    rows = "".join(f"text {i},{'ab'[i % 2]}\n" for i in range(10))
    content = hostile.zip_of(
        {"set/train.csv": f"text,label\n{rows}".encode(), "set/test.csv": b"text,label\nx,a\n"}
    )
    done = arrange([sent(tmp_path, "set.zip", content)], tmp_path / "data", LIMITS)
    path, read = to_load(tmp_path / "data", done.at, False)
    data = datasets.load(path, confined=True)
    assert (data.kind, len(data), data.split.origin, len(read)) == ("text", 11, "given", 2)


def test_a_table_beside_its_pictures_in_one_archive_names_them(tmp_path: Path) -> None:
    pictures = {f"images/{i}.png": hostile.png(seed=i) for i in range(4)}
    table = "file,label\n" + "".join(f"images/{i}.png,{'ab'[i % 2]}\n" for i in range(4))
    content = hostile.zip_of({**pictures, "labels.csv": table.encode()})
    done = arrange([sent(tmp_path, "x.zip", content)], tmp_path / "data", LIMITS)
    path, _ = to_load(tmp_path / "data", done.at, False)
    data = datasets.load(path, confined=True)
    assert (data.kind, len(data), data.labels) == ("image", 4, ("a", "b"))
    assert data.rows.column.read(0) == pictures["images/0.png"]


# Files that tables name


@pytest.mark.parametrize(
    "cell", ["../../etc/passwd", "/etc/passwd", "images/../../secret.png", "a\0b", " /etc/passwd "]
)
def test_a_table_that_names_a_file_outside_is_refused_unread(tmp_path: Path, cell: str) -> None:
    (tmp_path / "t.jsonl").write_text(
        "".join(f'{{"file": {cell_!r}, "label": "a"}}\n'.replace("'", '"') for cell_ in ("a.png", "b.png"))
    )
    import json

    with (tmp_path / "t.jsonl").open("a") as file:
        file.write(json.dumps({"file": cell, "label": "b"}) + "\n")
    with pytest.raises(RequestError, match="lies outside the data"):
        datasets.load(tmp_path / "t.jsonl", file="file", confined=True)


def test_a_record_with_a_path_in_it_is_confined_as_well(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    secret = tmp_path / "secret.png"
    secret.write_bytes(hostile.png())
    (tmp_path / "data").mkdir()
    values = [{"bytes": None, "path": "../secret.png"}, {"bytes": hostile.png(), "path": "x.png"}]
    pq.write_table(pa.table({"image": values, "label": ["a", "b"]}), tmp_path / "data/t.parquet")
    assert datasets.load(tmp_path / "data/t.parquet").rows.column.read(0)  # one's own data may lie anywhere
    with pytest.raises(RequestError, match="lies outside the data"):
        datasets.load(tmp_path / "data/t.parquet", confined=True)


def test_a_tilde_in_a_strangers_table_is_nobodys_home(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "secret.png").write_bytes(hostile.png())
    (tmp_path / "data").mkdir()
    (tmp_path / "data/t.csv").write_text("file,label\n~/secret.png,a\nb.png,b\n")
    data = datasets.load(tmp_path / "data/t.csv", confined=True)
    with pytest.raises(RequestError, match="cannot be opened"):
        data.rows.column.read(0)


# Files with labels


LABELS = [
    "../../etc",
    "a/b",
    "<script>alert(1)</script>",
    "🐈\u200d⬛",
    "con",
    "",
    "x" * 500,
    "..",
    "cat\u202etac",
]


def test_labels_of_single_files_never_become_part_of_a_path(tmp_path: Path) -> None:
    files = [sent(tmp_path, f"../{i}.png", hostile.png(seed=i), label, i) for i, label in enumerate(LABELS)]
    before = everything(tmp_path)
    done = arrange(files, tmp_path / "data", LIMITS)
    written = everything(tmp_path) - before
    assert all(path.is_relative_to(tmp_path / "data") for path in written)
    assert {path.name for path in (tmp_path / "data/contents").iterdir()} == {f"{i:06}" for i in range(1, 10)}
    assert [one.label for one in done.singles] == LABELS
    assert arranged(tmp_path / "data") == done


def test_hidden_characters_leave_labels_and_it_is_said() -> None:
    texts = [f"text {i}" for i in range(6)]
    data = datasets.load(texts, labels=["cat", "c\u202eat", "dog", "do\x00g", "🐈\u200d⬛", "\ud800dog"])
    assert data.labels == ("cat", "dog", "🐈\u200d⬛")
    assert any("removed from 3 labels" in note for note in data.notes)


def test_files_of_the_same_name_without_labels_are_refused(tmp_path: Path) -> None:
    files = [
        sent(tmp_path, name, b"text,label\nx,a\n", number=i) for i, name in enumerate(["a.csv", "d/A.csv"])
    ]
    with pytest.raises(Problem, match="two files are called"):
        arrange(files, tmp_path / "data", LIMITS)


def test_what_was_laid_out_once_is_not_laid_out_again(tmp_path: Path) -> None:
    file = sent(tmp_path, "t.csv", b"text,label\nx,a\ny,b\n")
    done = arrange([file], tmp_path / "data", LIMITS)
    file.path.unlink()
    assert arrange([file], tmp_path / "data", LIMITS) == done


@pytest.mark.parametrize(
    "name", ["../../x.csv", "/etc/x.csv", "..", "CON", "\u202e", "a\\b.csv", ".hidden", "x" * 400]
)
def test_a_users_name_for_a_file_cannot_leave_the_folder(name: str) -> None:
    safe = names.file_name(name, "file 1")
    assert names.file_name("../nul.csv", "file 1") == "file 1.csv"  # what it is stays known
    assert "/" not in safe and "\\" not in safe and not safe.startswith(".") and 0 < len(safe.encode()) <= 255


# Tables


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("t.csv", hostile.csv_many_columns, "500 at most"),
        ("t.csv", hostile.csv_large_cell, "a cell of more than"),
        ("t.jsonl", lambda: b'{"text": "' + b"x" * 2_000_000 + b'", "label": "a"}\n', "a cell of more than"),
        ("t.jsonl", lambda: b"".join(b'{"k%d": 1}\n' % i for i in range(900)), "500 at most"),
        ("t.csv", lambda: b"text,label\n" + b"x,a\n" * 1_001, "1,000 rows"),
        ("t.jsonl", lambda: b'{"text": "x", "label": "a"}\n' * 1_001, "1,000 rows"),
        ("t.parquet", lambda: hostile.parquet_bomb(2_000, 10), "1,000 rows"),
        ("t.parquet", lambda: b"PAR1 and nothing else PAR1", "cannot be read as Parquet"),
    ],
)
def test_a_table_too_wide_too_long_or_of_huge_cells_is_refused_before_it_is_read(
    tmp_path: Path, name: str, content: Callable[[], bytes], word: str
) -> None:
    path = packed(tmp_path, content())
    with pytest.raises(Problem, match=word) as caught:
        tables.check(path, name, Limits(columns=500), 1_000)
    assert len(str(caught.value)) < 300 and "\n" not in str(caught.value)


def test_a_parquet_table_that_unpacks_to_gigabytes_is_refused_in_bounded_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tables, "PARQUET_BYTES", 50_000_000)
    monkeypatch.setattr(tables, "_BATCH", 16)
    path = packed(tmp_path, hostile.parquet_bomb(2_000, 200_000))
    assert path.stat().st_size < 1_000_000
    with pytest.raises(Problem, match="unpacked"):
        tables.check(path, "t.parquet", LIMITS, None)


@pytest.mark.parametrize(
    ("name", "content", "word"),
    [
        ("t.csv", hostile.csv_with_nul(), "NUL"),
        ("t.jsonl", hostile.deep_json(), "too deep"),
        ("t.jsonl", hostile.json_long_number(), "too long a number"),
    ],
)
def test_a_table_that_breaks_readers_is_refused_with_its_line(
    tmp_path: Path, name: str, content: bytes, word: str
) -> None:
    (tmp_path / name).write_bytes(content)
    tables.check(tmp_path / name, name, LIMITS, 1_000)
    with pytest.raises(RequestError, match=word) as caught:
        datasets.load(tmp_path / name, confined=True)
    assert "line" in str(caught.value) and len(str(caught.value)) < 400


def test_numbers_that_are_none_leave_their_rows_unlabelled(tmp_path: Path) -> None:
    (tmp_path / "t.jsonl").write_bytes(hostile.json_with_nan())
    data = datasets.load(tmp_path / "t.jsonl", confined=True)
    assert data.labels == ("a", "b") and any("1 of 12 rows have no label" in note for note in data.notes)


def test_formulas_are_texts_like_others(tmp_path: Path) -> None:
    (tmp_path / "t.csv").write_bytes(hostile.csv_formulas())
    data = datasets.load(tmp_path / "t.csv", confined=True)
    assert data.rows.column.read(0) == b"=cmd|' /C calc'!A0 number 0"


def test_class_names_of_a_parquet_file_that_do_not_fit_its_codes_are_let_be(tmp_path: Path) -> None:
    (tmp_path / "t.parquet").write_bytes(hostile.parquet_strange_metadata())
    assert datasets.load(tmp_path / "t.parquet", confined=True).labels == ("1", "only")


@pytest.mark.parametrize("encoding", ["utf-16", "gb18030", "utf-8-sig"])
def test_tables_in_other_encodings_are_checked_as_they_are_read(tmp_path: Path, encoding: str) -> None:
    rows = "".join(f"“今天”天气不错{i},{'好坏'[i % 2]}\n" for i in range(20))
    (tmp_path / "t.csv").write_bytes(f"文本,标签\n{rows}".encode(encoding))
    tables.check(tmp_path / "t.csv", "t.csv", LIMITS, 20)
    assert len(datasets.load(tmp_path / "t.csv", confined=True)) == 20
    with pytest.raises(Problem, match="rows"):
        tables.check(tmp_path / "t.csv", "t.csv", LIMITS, 10)


# What is never opened


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *((f"model{suffix}", b"anything") for suffix in (".pt", ".pth", ".pkl", ".joblib", ".npy", ".npz")),
        *((f"model{suffix}", b"anything") for suffix in (".keras", ".h5", ".bin", ".PKL", ".Pickle")),
        *((f"cat{protocol}.jpg", hostile.pickle_named_jpg(protocol)) for protocol in range(2, 6)),
        ("cat.jpg", hostile.npy_with_objects()),
        ("cat.zip", hostile.torch_zip()),
        ("cat.jpg", b"\x89HDF\r\n\x1a\n"),
        ("cat.png", b"\x7fELF"),
        ("cat.tar", bytes(257) + b"ustar"),
    ],
)
def test_what_may_run_code_is_refused_unopened(
    name: str, content: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(Problem) as caught:
        kinds.refuse(name, content[:512])
    assert (caught.value.status, caught.value.code) == (415, "unsupported-type")
    assert "\n" not in str(caught.value) and capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("cat.jpg", hostile.png()),
        ("cat", b"\xff\xd8\xff\xe0"),
        ("a.csv", b"text,label\n"),
        ("a.csv", b"class,text\n"),
        ("a.txt", b"(long ago) in a land"),
        ("flowers.zip", hostile.zip_of(hostile.class_folders(1))),
        (
            "model.graft.zip",
            hostile.zip_of({"m.graft/head.safetensors": b"x", "m.graft/manifest.json": b"{}"}),
        ),
        ("a.wav", b"RIFF\0\0\0\0WAVEfmt "),
        ("空.csv", "文本,标签\n".encode("gb18030")),
        ("empty", b""),
    ],
)
def test_honest_files_pass(name: str, content: bytes) -> None:
    kinds.refuse(name, content[:512])


@pytest.mark.parametrize("content", [hostile.png_bomb, hostile.truncated_png, hostile.web_page_named_jpg])
def test_a_picture_that_is_none_is_an_unreadable_row(tmp_path: Path, content: Callable[[], bytes]) -> None:
    from graftwork.inspection import inspect

    files = {**hostile.class_folders(4), "dark/bad.jpg": content()}
    done = arrange([sent(tmp_path, "x.zip", hostile.zip_of(files))], tmp_path / "data", LIMITS)
    data = datasets.load(to_load(tmp_path / "data", done.at, False)[0], confined=True)
    found = inspect(data)
    assert list(found.unreadable) == ["dark/bad.jpg"] and len(data) == 9


# What goes out


def test_a_table_that_goes_out_holds_no_formula() -> None:
    from graftwork.wire import cell

    dangerous = ["=1+1", "+1+1", "-2+3", "@SUM(1)", "\tx", "\r=1", "=cmd|' /C calc'!A0"]
    assert [cell(one) for one in dangerous] == [f"'{one}" for one in dangerous]
    assert [cell(one) for one in ("-1", "+2.5", "a=b", "", "cat")] == ["-1", "+2.5", "a=b", "", "cat"]
