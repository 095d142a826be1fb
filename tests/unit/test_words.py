"""Word vectors: read from each format, pooled as the formulas say, and honest about what they lack."""

import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import graftwork as gw
import tiny_vectors as tiny
from graftwork import sources
from graftwork.backbones import open_backbone, restore, vectors
from graftwork.backbones.base import Remarking
from graftwork.backbones.vocabulary import UNKNOWN, Vocabulary
from graftwork.backbones.words import A, Words
from graftwork.errors import ArtefactError, GraftworkError, MissingExtra, RequestError
from graftwork.rows import Rows, Texts
from graftwork.sources import words as reader

pytestmark = pytest.mark.filterwarnings("ignore::DeprecationWarning:gensim")
WORDS = tiny.ENGLISH
MATRIX = tiny.vectors(len(WORDS))


@pytest.fixture(autouse=True)
def nothing_loaded(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a process of its own."""
    monkeypatch.setattr(vectors, "_loaded", {})


def rows_of(*texts: str) -> Rows:
    return Rows([f"text {i}" for i in range(len(texts))], {"text": Texts(list(texts))})


def opened(path: Path, pooling: str | None = None) -> Words:
    found = open_backbone(sources.find(str(path)), None, pooling=pooling)
    assert isinstance(found, Words)
    return found


def refusal(path: Path) -> str:
    """What is said of a file that cannot be used: one line that names it."""
    with pytest.raises(GraftworkError) as caught:
        opened(path)
    said = str(caught.value)
    assert "\n" not in said and path.name in said
    return said


@pytest.fixture
def english(tmp_path: Path) -> Path:
    return tiny.word2vec(tmp_path / "english.txt", WORDS, MATRIX)


@pytest.mark.parametrize("name", ["v.txt", "v.vec", "v.txt.gz", "v.bin", "glove.txt", "glove.txt.gz"])
def test_each_format_gives_the_same_words_and_numbers(tmp_path: Path, name: str) -> None:
    write = tiny.binary if name.endswith(".bin") else tiny.glove if "glove" in name else tiny.word2vec
    backbone = opened(write(tmp_path / name, WORDS, MATRIX))
    assert list(backbone.vectors.words) == WORDS
    assert np.array_equal(backbone.vectors.matrix, MATRIX)
    assert backbone.source.kind == "text" and backbone.vectors.notes == ()


# pooling, against the formulas written out for one text at a time


def expected(pooling: str, text: str) -> NDArray[np.float64]:
    table, ranks = MATRIX.astype(np.float64), np.arange(1, len(WORDS) + 1)
    p = 1 / (ranks * sum(1 / rank for rank in ranks))
    places = [WORDS.index(word) for word in text.split() if word in WORDS]
    own = table[places]
    if pooling == "mean":
        return own.mean(axis=0)
    if pooling == "idf":
        return sum(np.log(1 / p[i]) * table[i] for i in places) / sum(np.log(1 / p[i]) for i in places)
    if pooling == "spread":
        return np.concatenate([own.mean(axis=0), own.std(axis=0), own.max(axis=0), own.min(axis=0)])
    weighted = table * (A / (A + p))[:, None]
    # the common direction by power iteration on the expected second moment of one weighted word
    moment = sum(p[i] * np.outer(weighted[i], weighted[i]) for i in range(len(WORDS)))
    direction = np.ones(table.shape[1])
    for _ in range(5000):
        direction = moment @ direction
        direction /= np.linalg.norm(direction)
    mean = weighted[places].mean(axis=0)
    return mean - direction * (direction @ mean)


TEXTS = ("the film", "good", "bad bad dull story .", "the the the of and !", "unheard good words film")


@pytest.mark.parametrize("pooling", ["spread", "mean", "idf", "sif"])
def test_pooling_is_what_its_formula_says(english: Path, pooling: str) -> None:
    backbone = opened(english, pooling)
    assert backbone.vocabulary.by_frequency
    found = backbone.features(rows_of(*TEXTS)).matrix
    assert found.shape == (len(TEXTS), backbone.width)
    for row, text in zip(found, TEXTS, strict=True):
        assert np.allclose(row, expected(pooling, text), atol=2e-5), text


def test_default_pooling_is_spread_and_auto_names_it(english: Path) -> None:
    prints = {opened(english, name).fingerprint for name in (None, "auto", "spread")}
    assert len(prints) == 1
    assert len(prints | {opened(english, name).fingerprint for name in ("mean", "idf", "sif")}) == 4


def test_words_not_sorted_by_frequency_count_as_equally_frequent(tmp_path: Path) -> None:
    backbone = opened(tiny.word2vec(tmp_path / "v.txt", sorted(WORDS), MATRIX), "idf")
    assert not backbone.vocabulary.by_frequency
    plain = opened(tmp_path / "v.txt", "mean").features(rows_of(*TEXTS)).matrix
    assert np.allclose(backbone.features(rows_of(*TEXTS)).matrix, plain, atol=1e-6)
    assert any("not sorted" in said for said in backbone.remarks(rows_of(*TEXTS)))


def test_characters_in_the_order_of_their_codes_are_not_sorted_by_frequency() -> None:
    assert Vocabulary(tiny.CHARACTERS).by_frequency
    assert not Vocabulary(sorted(tiny.CHARACTERS)).by_frequency


def test_rarer_words_weigh_more(english: Path) -> None:
    backbone = opened(english, "sif")
    assert (np.diff(backbone.frequencies) < 0).all() and np.isclose(backbone.frequencies.sum(), 1)
    assert (np.diff(backbone.weights) > 0).all()


# what every backbone promises; see also the contracts


@pytest.mark.parametrize("pooling", ["spread", "mean", "idf", "sif"])
def test_a_row_has_the_same_bits_whatever_its_neighbours(english: Path, pooling: str) -> None:
    rng = np.random.default_rng(0)
    rows = rows_of(*(" ".join(rng.choice([*WORDS, "unheard"], rng.integers(0, 40))) for _ in range(300)))
    backbone = opened(english, pooling)
    whole = backbone.features(rows).matrix
    order = rng.permutation(300)
    assert np.array_equal(backbone.features(rows.take(order)).matrix, whole[order])
    for i in (0, 137, 299):
        assert np.array_equal(backbone.features(rows.take(np.array([i]))).matrix[0], whole[i])
    assert backbone.features(rows.take(np.array([], dtype=np.int64))).matrix.shape == (0, backbone.width)


def test_restored_backbone_gives_the_same_bits(english: Path) -> None:
    backbone = opened(english, "sif")
    state = backbone.state()
    assert json.loads(json.dumps(dict(state.config))) == state.config
    again = restore(state)
    assert again.fingerprint == backbone.fingerprint and again.width == backbone.width
    assert np.array_equal(again.features(rows_of(*TEXTS)).matrix, backbone.features(rows_of(*TEXTS)).matrix)


def test_features_learn_nothing_from_the_rows_at_hand(english: Path) -> None:
    backbone = opened(english, "sif")
    before = backbone.features(rows_of("good film")).matrix
    backbone.features(rows_of(*["bad dull story"] * 50))
    backbone.remarks(rows_of("bad"))
    assert np.array_equal(opened(english, "sif").features(rows_of("good film")).matrix, before)
    assert np.array_equal(backbone.features(rows_of("good film")).matrix, before)


# from texts to words


def said(words: list[str], text: str) -> list[str]:
    (places,) = Vocabulary(words).places([text])
    return ["?" if place == UNKNOWN else words[place] for place in places]


def test_words_as_written_come_before_lower_case() -> None:
    assert said(WORDS, "Bright GOOD film") == ["Bright", "good", "film"]
    assert said(WORDS, "bright") == ["?"]
    assert said([*WORDS, "bright"], "Bright bright") == ["Bright", "bright"]


def test_signs_and_english_endings_stand_apart_unless_the_whole_is_known() -> None:
    assert said(WORDS, "film, good. Don't it's it’s") == "film ? good . do n't it 's it 's".split()
    assert said([*WORDS, "don't", "u.s."], "don't U.S.") == ["don't", "u.s."]


def test_chinese_is_read_by_character_where_the_vectors_are_characters() -> None:
    assert Vocabulary(tiny.CHARACTERS).characters and not Vocabulary(WORDS).characters
    assert said(tiny.CHARACTERS, "味道 很好！Ａ龘") == [*"味道很好！a?"]


def test_chinese_is_read_by_longest_match_where_the_vectors_are_words() -> None:
    words = ["味道", "很", "好吃", "好", "味", "道理", "不错", "中华人民共和国", "good", "thing", "words"]
    assert said(words, "味道很好吃，味道理good不错") == [
        "味道",
        "很",
        "好吃",
        "?",
        "味道",
        "?",
        "good",
        "不错",
    ]
    assert said([*words, "中华"], "中华人民共和国好中华好") == ["中华人民共和国", "好", "中华", "好"]


# what is not known is counted and said


def test_row_without_a_known_word_is_all_zeros_and_counted(english: Path) -> None:
    backbone = opened(english)
    assert isinstance(backbone, Remarking)
    rows = rows_of("good unheard film", "quite unheard", "")
    found = backbone.features(rows)
    assert found.matrix[0].any() and not found.matrix[1:].any() and not found.unreadable
    (line,) = backbone.remarks(rows)
    assert "60.00% of the 5 words" in line and "2 of 3 rows" in line


def test_data_in_another_language_are_refused(english: Path) -> None:
    with pytest.raises(RequestError, match="no vector for any word of these 2 texts"):
        open_backbone(sources.find(str(english)), rows_of("味道", "很好"))


def test_fit_says_what_is_unknown_and_keeps_it(english: Path, tmp_path: Path, brisk: None) -> None:
    from graftwork.words import outcome_in_words

    texts = [f"{a} {b} unheard" for a in ("good", "Bright", "bad", "dull") for b in WORDS[:12]]
    labels = ["praise"] * 24 + ["complaint"] * 24
    outcome = gw.fit(texts, labels=labels, source=str(english), baselines="none")
    assert outcome.result.source is not None
    (line,) = outcome.result.source.notes
    assert "words in these rows have no vector" in line
    assert line in outcome_in_words(outcome.result) and line in outcome.report()
    folder = outcome.save(tmp_path / "made.graft")
    assert json.loads((folder / "manifest.json").read_text("utf-8"))["result"]["source_notes"] == [line]
    model = gw.Model.load(folder)
    assert np.array_equal(model.predict_proba(texts), outcome.model.predict_proba(texts))


# bad files, each one line


def test_wrong_width_names_the_line(tmp_path: Path) -> None:
    text = ["3 12", *tiny.lines(WORDS[:3], MATRIX[:3])]
    text[2] += " 0.5"
    assert "line 3 has 13 numbers" in refusal(tiny.written(tmp_path / "v.txt", text))
    text[2] = text[2].rsplit(" ", 3)[0]
    assert "line 3 has 10 numbers" in refusal(tiny.written(tmp_path / "w.txt", text))


@pytest.mark.skipif(shutil.which("awk") is None, reason="no awk here")
def test_the_command_proposed_for_wrong_lines_mends_the_file(tmp_path: Path) -> None:
    text = tiny.lines(WORDS, MATRIX)
    text[1] = text[1].replace(" ", "\t", 1)
    text[2] = text[2].replace(" ", "  ", 1)
    text[3] += " 0.5"
    for header in ([], [f"{len(text) - 1} 12"]):
        bad = tiny.written(tmp_path / "v.txt", [*header, *text])
        command = refusal(bad).partition("awk '")[2].removesuffix("'")
        mended = subprocess.run(["awk", command, bad], capture_output=True, check=True, text=True).stdout
        words = opened(tiny.written(tmp_path / f"{len(header)}.txt", mended.splitlines())).vectors.words
        assert list(words) == [*WORDS[:3], *WORDS[4:]]


def test_a_byte_order_mark_is_refused_with_how_to_remove_it(tmp_path: Path) -> None:
    path = tiny.glove(tmp_path / "v.txt", WORDS, MATRIX)
    path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())
    assert reader.recognises(path)
    assert "byte-order mark" in refusal(path) and r"'1s/^\xEF\xBB\xBF//'" in refusal(path)


def test_a_file_that_may_not_be_read_is_said_so_not_called_no_source(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tiny.glove(tmp_path / "v.txt", WORDS, MATRIX)

    def forbidden(path: Path) -> None:
        raise PermissionError(13, "Permission denied", str(path))

    monkeypatch.setattr(reader, "_opened", forbidden)
    assert f"{path} cannot be read (Permission denied)" in refusal(path)


@pytest.mark.parametrize("number", ["nan", "inf", "1e300", "0,5", "abc"])
def test_what_is_no_finite_number_names_the_line(tmp_path: Path, number: str) -> None:
    text = ["5 12", *tiny.lines(WORDS[:5], MATRIX[:5])]
    text[4] = text[4].rsplit(" ", 1)[0] + " " + number
    found = refusal(tiny.written(tmp_path / "v.txt", text))
    assert "line 5" in found and repr(number) in found


def test_nan_in_a_binary_file_is_refused(tmp_path: Path) -> None:
    broken = MATRIX.copy()
    broken[7, 3] = np.nan
    assert repr(WORDS[7]) in refusal(tiny.binary(tmp_path / "v.bin", WORDS, broken))


def test_fewer_words_than_promised_is_truncated_and_more_is_said(tmp_path: Path) -> None:
    assert "promises 20 words, it holds 16" in refusal(tiny.word2vec(tmp_path / "v.txt", WORDS, MATRIX, 20))
    backbone = opened(tiny.word2vec(tmp_path / "w.txt", WORDS, MATRIX, 10))
    assert list(backbone.vectors.words) == WORDS[:10]
    assert "after the promised 10, which are not read: 6" in backbone.vectors.notes[0]
    assert backbone.vectors.notes[0] in backbone.remarks(rows_of("good"))


def test_first_of_duplicate_words_wins_and_it_is_said(tmp_path: Path) -> None:
    words = ["good", *WORDS, "good"]
    matrix = tiny.vectors(len(words), seed=1)
    for write, name in ((tiny.word2vec, "v.txt"), (tiny.glove, "g.txt"), (tiny.binary, "v.bin")):
        backbone = opened(write(tmp_path / name, words, matrix), "mean")
        assert np.array_equal(backbone.features(rows_of("good")).matrix[0], matrix[0])
        assert "repeat an earlier word, whose first vector counts: 2" in backbone.vectors.notes[0]


def test_truncated_binary_and_gzip_files_are_refused(tmp_path: Path) -> None:
    path = tiny.binary(tmp_path / "v.bin", WORDS, MATRIX)
    path.write_bytes(path.read_bytes()[:-30])
    assert "is truncated" in refusal(path)
    for write, name in ((tiny.word2vec, "v.txt"), (tiny.glove, "g.txt")):
        text = write(tmp_path / name, WORDS, MATRIX)
        text.write_bytes(text.read_bytes()[:-30])
        assert "is truncated" in refusal(text)
    packed = tiny.word2vec(tmp_path / "v.txt.gz", WORDS * 40, np.tile(MATRIX, (40, 1)))
    packed.write_bytes(packed.read_bytes()[:-30])
    assert "is truncated" in refusal(packed)


def test_empty_file_and_blank_line_are_refused(tmp_path: Path) -> None:
    (tmp_path / "v.txt").write_bytes(b"")
    assert "is empty" in refusal(tmp_path / "v.txt")
    text = tiny.lines(WORDS, MATRIX)
    assert "line 4 is empty" in refusal(tiny.written(tmp_path / "g.txt", [*text[:3], "", *text[3:]]))
    assert len(opened(tiny.written(tmp_path / "h.txt", [*text, "", ""])).vectors.words) == len(WORDS)


def test_another_encoding_is_refused_but_a_cut_word_is_only_said(tmp_path: Path) -> None:
    text = ["12 12", *tiny.lines(tiny.CHARACTERS, MATRIX[:12])]
    assert "is not UTF-8" in refusal(tiny.written(tmp_path / "v.txt", text, "gb18030"))
    many = [*(f"word{i}" for i in range(200)), "cut"]
    path = tiny.word2vec(tmp_path / "w.txt", many, tiny.vectors(201))
    path.write_bytes(path.read_bytes().replace(b"cut ", "好".encode()[:2] + b" "))
    assert opened(path).vectors.notes == ("words that are no valid UTF-8 and match nothing: 1",)


def test_more_than_the_free_memory_is_refused_naming_what_is_needed(
    english: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import psutil

    class Little:
        available = 1_000

    monkeypatch.setattr(psutil, "virtual_memory", Little)
    assert "GB of memory" in refusal(english)


def test_promise_of_terabytes_is_refused_before_anything_is_allocated(tmp_path: Path) -> None:
    (tmp_path / "v.bin").write_bytes(b"900000000000 300\nword " + bytes(1200))
    assert "is truncated" in refusal(tmp_path / "v.bin")


def test_pickles_of_gensim_are_refused_unopened(tmp_path: Path) -> None:
    for name in ("v.model", "v.kv"):
        (tmp_path / name).write_bytes(pickle.dumps({"a": 1}))
        assert "can run code" in refusal(tmp_path / name)


def test_other_files_are_not_taken_for_vectors(tmp_path: Path) -> None:
    for name, content in {
        "README.txt": "Vectors of 2024\n\nsee below\n",
        "numbers.txt": "10 20\n30 40\n",
        "two.txt": "4758 200\nThese are the word counts\n",
        "long.txt": "the quick brown fox jumps over the lazy dog and then some more words\n",
        "pytorch_model.bin": "PK\x03\x04",
        "tokenizer.model": "\x0a\x0etext",
        "vectors.csv": "2 12\n" + "\n".join(tiny.lines(WORDS[:2], MATRIX[:2])),
    }.items():
        (tmp_path / name).write_text(content, "utf-8")
        assert not reader.recognises(tmp_path / name), name
    assert not reader.recognises(tmp_path)


def test_unknown_options_are_refused(english: Path) -> None:
    source = sources.find(str(english))
    with pytest.raises(RequestError, match="did you mean 'mean'"):
        open_backbone(source, None, pooling="meen")
    with pytest.raises(RequestError, match="pooling alone"):
        open_backbone(source, None, resize="crop")


# read once


def test_file_is_read_once_a_machine_and_later_runs_need_no_gensim(
    english: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = opened(english)
    assert isinstance(first.vectors.matrix, np.memmap), "what gensim read is let go"
    monkeypatch.setitem(sys.modules, "gensim.models", None)
    monkeypatch.setattr(vectors, "_loaded", {})
    again = opened(english)
    assert isinstance(again.vectors.matrix, np.memmap)
    assert np.array_equal(again.vectors.matrix, first.vectors.matrix)
    assert list(again.vectors.words) == list(first.vectors.words)


def test_file_is_read_once_a_process(english: Path) -> None:
    assert opened(english, "mean").vectors is opened(english, "sif").vectors


def test_home_that_cannot_be_written_costs_time_and_nothing_else(
    english: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("GRAFT_HOME", str(tmp_path / "file"))
    assert np.array_equal(opened(english).vectors.matrix, MATRIX)


def test_without_gensim_the_extra_is_named(english: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "gensim.models", None)
    with pytest.raises(MissingExtra, match="words"):
        opened(english)


def test_damaged_copy_is_never_used_but_made_again(
    english: Path, home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened(english)
    for name in ("vectors.npy", "words.json", "about.json"):
        (path,) = home.glob(f"vectors/*/{name}")
        content = bytearray(path.read_bytes())
        content[-6] ^= 1
        path.write_bytes(content)
        monkeypatch.setattr(vectors, "_loaded", {})
        assert np.array_equal(opened(english).vectors.matrix, MATRIX), name
        assert path.read_bytes() != bytes(content), name


def test_altered_vectors_are_another_source_and_a_saved_one_is_refused(english: Path) -> None:
    state = opened(english).state()
    changed = MATRIX.copy()
    changed[0, 0] += 1
    tiny.word2vec(english, WORDS, changed)
    assert opened(english).fingerprint != restore(state).fingerprint
    vectors._loaded.clear()
    assert state.source is not None
    with pytest.raises(ArtefactError, match="has changed"):
        vectors._converted(state.source, english.parent / "nowhere", lambda _: None)


def test_real_characters_know_nearly_all_of_the_reviews(real_data: Path) -> None:
    import csv

    with (real_data / "waimai_zh" / "test.csv").open(encoding="utf-8") as file:
        rows = rows_of(*(line["text"] for line in csv.DictReader(file)))
    backbone = opened(real_data / "word_vectors" / "zh_char_tencent_200d.txt")
    assert backbone.vocabulary.characters and len(backbone.vectors.words) == 4758
    (places,) = backbone.vocabulary.places(["好"])
    missing = [place for row in backbone.vocabulary.places(rows.column.values) for place in row].count(-1)  # type: ignore[attr-defined]
    assert missing / sum(len("".join(text.split())) for text in rows.column.values) < 0.005  # type: ignore[attr-defined]
    table = backbone.vectors.matrix
    closest = table @ table[places[0]] / np.linalg.norm(table, axis=1)
    assert "棒" in {backbone.vectors.words[i] for i in np.argsort(-closest)[:40]}
