"""`graft sources` as a user types it."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner, Result

import tiny
import tiny_vectors
from fake_hub import FakeHub, source
from graftwork import catalogue
from graftwork.cli import app
from graftwork.cli.sources import WIDTH, listed
from graftwork.sources.listing import Known

A = "a" * 40


def graft(*words: str | Path, status: int = 0) -> Result:
    done = CliRunner().invoke(app, ["sources", *map(str, words)])
    assert done.exit_code == status, (done.exit_code, done.stdout, done.stderr, done.exception)
    return done


def graft_json(*words: str | Path, status: int = 0) -> Any:
    """The one JSON object on stdout."""
    (line,) = graft(*words, "--json", status=status).stdout.splitlines()
    return json.loads(line)


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeHub:
    """No model of this machine's own hub cache is seen."""
    return FakeHub.installed(tmp_path / "cache", monkeypatch)


@pytest.fixture
def net(tmp_path: Path) -> Path:
    return tiny.resnet(tmp_path / "net")


def test_the_list_marks_what_forbids_commercial_use_and_what_is_here(cache: FakeHub) -> None:
    lines = graft().stdout.splitlines()
    assert len(lines) == len(catalogue.entries()) + 2
    assert max(map(len, lines)) <= WIDTH
    by_name = {line.split()[0]: line for line in lines}
    assert "cc-by-nc-4.0*" in by_name["finance-bge"] and by_name["glyphs"].endswith("yes")
    assert by_name["vit-base"].endswith("-") and lines[-1] == "* its licence forbids commercial use"
    assert "forbids" not in graft("list", "--licence", "commercial").stdout


def test_the_list_is_filtered(cache: FakeHub) -> None:
    def names(*options: str) -> set[str]:
        return {one["name"] for one in graft_json("list", *options)["sources"]}

    assert names("--kind", "text", "--language", "zh", "--size", "small") == {"bge-small-zh"}
    assert names("--local", "--kind", "image") == {"glyphs"}
    assert names("--licence", "mit", "--kind", "image") == {"rad-dino"}
    assert "no source known fits" in graft("--kind", "audio", "--local", status=2).stderr


def test_long_names_and_many_words_stay_within_the_width() -> None:
    found = [
        Known("sentence-transformers/paraphrase-multilingual-MiniLM-L12-v2", catalogue.entry("e5-large")),
        Known("sentence-transformers/paraphrase-multilingual-mpnet-base-v2", catalogue.entry("phikon-v2")),
    ]
    lines = listed(found).splitlines()
    assert max(map(len, lines)) <= WIDTH
    assert lines[1].split()[0].endswith("MiniLM-L12-v2") and lines[2].split()[0].endswith("mpnet-base-v2")


def test_show_tells_all_that_is_known_and_nothing_that_is_not(cache: FakeHub) -> None:
    said = graft("show", "phikon-v2").stdout
    for part in (
        "owkin-non-commercial (forbids commercial use)",
        "303,351,808",
        "224 x 224 pixels",
        "histology",
    ):
        assert part in said
    assert "revision" not in said and "None" not in said and "remark" not in said
    found = graft_json("show", "finance-bge")["sources"][0]
    assert found["commercial_use"] is False and found["local"] is False and found["licence"] == "cc-by-nc-4.0"
    assert "did you mean 'vit-base'" in graft("show", "vit-bas", status=2).stderr
    assert cache.calls == 0


def test_add_registers_a_folder_and_check_runs_it(settled_home: Path, cache: FakeHub, net: Path) -> None:
    assert "--source mine" in graft("add", net, "--name", "mine", "--licence", "cc-by-nc-4.0").stdout
    assert graft_json("show", "mine")["sources"][0]["commercial_use"] is False
    (found,) = graft_json("check", "mine")["checked"]
    assert found["fault"] is None and (found["width"], found["files"], found["rows"]) == (16, 3, 4)
    assert {"runtime", "precision", "parity", "seconds"} <= set(found)
    assert "mine" in graft("check", "mine").stdout


def test_adding_a_file_names_the_file(cache: FakeHub, tmp_path: Path) -> None:
    path = tiny_vectors.glove(tmp_path / "words.txt", ["a", "b"], tiny_vectors.vectors(2, 20))
    assert f"(text): {path}" in graft("add", path).stdout.splitlines()[0]


def test_a_licence_that_forbids_commercial_use_is_said_when_such_a_source_is_added(
    cache: FakeHub, net: Path
) -> None:
    done = graft("add", net, "--name", "mine", "--licence", "cc-by-nc-4.0")
    assert "note: the licence of mine (cc-by-nc-4.0) forbids commercial use" in done.stderr
    assert graft("add", net, "--name", "mine", "--licence", "cc-by-nc-4.0", "--quiet").stderr == ""


def test_check_ends_with_status_2_and_says_what_is_wrong(
    settled_home: Path, cache: FakeHub, net: Path
) -> None:
    graft("add", net)
    weights = net / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    checked = {
        one["name"]: one["fault"] for one in graft_json("check", "--kind", "image", status=2)["checked"]
    }
    assert checked["glyphs"] is None and "has changed since" in checked["net"]
    said = graft("check", "--kind", "image", status=2).stdout.splitlines()[-1]
    assert said.startswith("unsound: net: ") and f"graft sources add {net} --name net" in said
    assert graft().stdout.count("unsound") == 1


def test_a_named_source_that_is_unsound_is_one_error_line(
    settled_home: Path, cache: FakeHub, net: Path
) -> None:
    graft("add", net)
    (net / "config.json").write_text((net / "config.json").read_text() + " ")
    done = graft("check", "net", status=2)
    (line,) = done.stderr.splitlines()
    assert line.startswith("graft: source 'net' has changed since") and done.stdout == ""
    assert graft_json("check", "net", status=2)["error"]["status"] == 2


def test_check_finds_weights_that_are_no_numbers(settled_home: Path, cache: FakeHub, net: Path) -> None:
    import numpy as np
    from safetensors.numpy import load_file, save_file

    weights = load_file(net / "model.safetensors")
    spoilt = {
        name: np.full_like(one, np.nan) if one.dtype.kind == "f" else one for name, one in weights.items()
    }
    save_file(spoilt, net / "model.safetensors")
    assert "no numbers" in graft("check", net, status=2).stderr


def test_add_pins_a_hub_model_at_what_the_hub_has_now(cache: FakeHub, tmp_path: Path) -> None:
    cache.push("owner/net", source(tmp_path / "at-a", seed=1), A)
    assert graft_json("add", "owner/net")["source"]["revision"] == A
    cache.push("owner/net", source(tmp_path / "at-b", seed=2), "b" * 40)
    assert graft_json("show", "owner/net")["sources"][0]["revision"] == A
    assert f"at {'b' * 40}" in graft("add", "owner/net").stdout
    assert graft_json("show", "owner/net")["sources"][0]["revision"] == "b" * 40
    shutil.rmtree(cache.cache)
    assert "not in this machine's hub cache" in graft("check", "owner/net", "--offline", status=2).stderr


def test_remove_forgets_and_leaves_the_files(cache: FakeHub, net: Path) -> None:
    graft("add", net)
    assert graft_json("remove", "net") == {"removed": "net"}
    assert (net / "model.safetensors").is_file()
    assert "no source 'net' was added" in graft("remove", "net", status=2).stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("forget",), "expected list, show, add, check or remove"),
        (("show",), "which source"),
        (("add",), "which source"),
        (("list", "minilm"), "graft sources show minilm"),
        (("show", "minilm", "--kind", "text"), "takes no --kind"),
        (("check", "minilm", "--local"), "takes no --local"),
        (("list", "--name", "x"), "takes no --name"),
        (("--kind", "picture"), "known: audio, image, text"),
        (("--size", "tiny"), "known: large, medium, small"),
        (("add", "nowhere"), "nothing to add at 'nowhere'"),
        (("add", "keras:VGG16"), "needs no adding; use it as it stands: --source keras:VGG16"),
        (("add", "resnet-18", "--name", "x"), "keeps its own name"),
        (("check", "nowhere"), "no source 'nowhere'"),
    ],
)
def test_a_wrong_request_is_one_line_and_status_2(cache: FakeHub, words: tuple[str, ...], said: str) -> None:
    done = graft(*words, status=2)
    (line,) = (done.stderr + done.stdout).splitlines()
    assert said in line


def test_a_fit_says_that_its_source_s_licence_forbids_commercial_use(
    brisk: None, cache: FakeHub, tmp_path: Path
) -> None:
    texts = tiny.text_rows(24)
    lines = [f"{texts.column.read(i).decode()},{'ab'[i % 2]}" for i in range(24)]
    (tmp_path / "few.csv").write_text("\n".join(["text,label", *lines]), "utf-8")
    graft("add", tiny.bert(tmp_path / "words"), "--licence", "cc-by-nc-4.0", "--quiet")
    words = [
        "fit",
        tmp_path / "few.csv",
        "-o",
        tmp_path / "x.graft",
        "--source",
        "words",
        "--baselines",
        "none",
    ]
    done = CliRunner().invoke(app, list(map(str, words)))
    assert done.exit_code == 0, (done.stderr, done.exception)
    assert "the licence of words (cc-by-nc-4.0) forbids commercial use" in done.stdout
