"""A fit that was cut short goes on where it was, and ends as if nothing had happened."""

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file
from typer.testing import CliRunner

import graftwork as gw
import tiny
from graftwork import fitting, running, wire
from graftwork.cli import app
from graftwork.records import Progress
from graftwork.strategies.auto import Auto
from graftwork.strategies.base import Task
from graftwork.strategies.probe import Probe
from graftwork.words import outcome_in_words
from toys import ToyBackbone

pytestmark = pytest.mark.usefixtures("brisk")

SETTINGS = {"epochs": 3, "batch": 4, "patience": "none"}


class Killed(BaseException):
    """As sudden as a signal: nothing catches it."""


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(running.EVERY, "0")
    return str(tiny.bert(tmp_path / "bert"))


def a_table(folder: Path, rows: int = 32) -> Path:
    words, part = ["good fine bright film", "bad dull plot scene"], ["train", "test"]
    lines = [
        f"{words[i % 2]} {tiny.WORDS[i % 7]} {tiny.WORDS[i // 7]},{'ab'[i % 2]},{part[i > 23]}"
        for i in range(rows)
    ]
    path = folder / "table.csv"
    path.write_text("text,label,split\n" + "\n".join(lines) + "\n", "utf-8")
    return path


def fitted(folder: Path, source: str, notify: Any = lambda _: None, **more: Any) -> gw.Outcome:
    given: dict[str, Any] = {"strategy": "full", "settings": SETTINGS, "baselines": "none", "seed": 1, **more}
    return gw.fit(a_table(folder), source=source, notify=notify, run=folder / ".run", **given)


def cut_short(folder: Path, source: str, step: int) -> None:
    """A fit that ends suddenly at a training step, as a killed one does."""

    def notify(progress: Progress) -> None:
        if progress.stage == "training" and progress.done >= step:
            raise Killed

    with pytest.raises(Killed):
        fitted(folder, source, notify)


def tensors(artefact: Path) -> dict[str, bytes]:
    return {
        f"{path.relative_to(artefact)}:{name}": np.ascontiguousarray(value).tobytes()
        for path in sorted(artefact.rglob("*.safetensors"))
        for name, value in load_file(path).items()
    }


@pytest.mark.parametrize("step", [1, 9])
def test_a_resumed_fit_ends_with_the_same_bits(
    step: int, tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graftwork.training.loop.NOTIFY_S", 0.0)
    alone = fitted(tmp_path, source)
    whole = tensors(alone.save(tmp_path / "alone.graft"))
    assert not (tmp_path / ".run").exists()
    cut_short(tmp_path, source, step)
    assert list((tmp_path / ".run").glob("*.safetensors"))
    steps: list[int] = []

    def notify(progress: Progress) -> None:
        if progress.stage == "training":
            steps.append(progress.done)

    resumed = fitted(tmp_path, source, notify, resume=True)
    assert steps[0] > 1 or step == 1
    assert tensors(resumed.save(tmp_path / "resumed.graft")) == whole
    assert resumed.result.assessment == alone.result.assessment
    assert resumed.result.seconds["earlier attempts"] > 0
    assert not (tmp_path / ".run").exists()


def test_a_killed_command_goes_on(tmp_path: Path, source: str) -> None:
    """The real thing: kill -9 in the middle of the training, then the same command with --resume."""
    code = (
        "import time; from graftwork.training.checkpoints import Checkpoint\n"
        "save, saved = Checkpoint.save, []\n"
        "def few(*given):\n"
        "    while len(saved) == 3: time.sleep(1)\n"  # it cannot end before it is killed
        "    saved.append(save(*given))\n"
        "Checkpoint.save = few; from graftwork.cli import main; main()"
    )
    alone = fitted(tmp_path, source)
    whole = tensors(alone.save(tmp_path / "alone.graft"))
    words = ["fit", str(a_table(tmp_path)), "-o", str(tmp_path / "m.graft"), "--source", source]
    words += ["--strategy", "full", "--baselines", "none", "--seed", "1"]
    words += [word for name, value in SETTINGS.items() for word in ("--set", f"{name}={value}")]
    process = subprocess.Popen(
        [sys.executable, "-c", code, *words, "--quiet"],
        stdout=subprocess.DEVNULL,
        env={**os.environ, running.EVERY: "0"},
    )
    folder = running.beside(tmp_path / "m.graft")
    while process.poll() is None and not list(folder.glob("*.safetensors")):
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    done = CliRunner().invoke(app, [*words, "--resume", "--json"])
    assert done.exit_code == 0, (done.stderr, done.exception)
    assert tensors(tmp_path / "m.graft") == whole
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["scores"]["test"]["accuracy"]["value"] == alone.scores["accuracy"].value
    assert not folder.exists()


def test_another_request_is_refused_by_what_differs(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("graftwork.training.loop.NOTIFY_S", 0.0)
    cut_short(tmp_path, source, 3)
    for more, said in (
        ({"seed": 2}, "had seed 1, this one has 2"),
        ({"settings": {**SETTINGS, "epochs": 4}}, "had settings"),
        ({"metric": "macro_f1"}, 'had metric "accuracy"'),
    ):
        with pytest.raises(gw.RequestError, match=said):
            fitted(tmp_path, source, resume=True, **more)
    assert (tmp_path / ".run").is_dir(), "a slip must not cost the run"


def test_what_becomes_of_an_earlier_run_is_said(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.warns(running.RunWarning, match="no run to go on with"):
        fitted(tmp_path, source, resume=True)
    with pytest.warns(running.RunWarning, match="starts afresh; --resume goes on"):
        fitted(tmp_path, source)
    with pytest.raises(gw.RequestError, match="resume needs the folder"):
        gw.fit(a_table(tmp_path), source=source, resume=True)


def test_the_time_that_was_spent_counts(tmp_path: Path) -> None:
    begun = time.time()
    first = running.begin(tmp_path / "run", {"seed": 1}, resume=False)
    os.utime(tmp_path / "run" / running.ALIVE, (begun + 40, begun + 40))
    second = running.begin(tmp_path / "run", {"seed": 1}, resume=True)
    assert first.before == 0 and 20 < second.before < 41  # less what it took to begin
    os.utime(tmp_path / "run" / running.ALIVE, (begun + 10, begun + 10))
    third = running.begin(tmp_path / "run", {"seed": 1}, resume=True)
    assert second.before < third.before < 52


def test_what_was_decided_once_stays(tmp_path: Path) -> None:
    first = running.begin(tmp_path / "run", {}, resume=False)
    assert first.decided("seconds", 3.5) == 3.5
    assert running.begin(tmp_path / "run", {}, resume=True).decided("seconds", 1.0) == 3.5


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (
            {"strategy": "lora", "settings": {"epochs": 3, "rank": 8}},
            'had strategy "full", this one has "lora";',
        ),
        ({"settings": {"epochs": 4, "batch": None}}, "had settings epochs=3, this one has epochs=4;"),
        ({"settings": {"epochs": 3}, "seed": 1}, "had seed 0, this one has 1;"),
        ({"data": "ab" * 32}, "had data 0f0f0f0f0f0f..., this one has abababababab...;"),
        ({"metric": None}, 'had metric "accuracy", this one has null;'),
    ],
)
def test_a_run_of_another_request_is_told_by_what_differs(
    tmp_path: Path, other: dict[str, Any], said: str
) -> None:
    settings = {"epochs": 3, "batch": None}
    asked = {"data": "0f" * 32, "strategy": "full", "settings": settings, "seed": 0, "metric": "accuracy"}
    running.begin(tmp_path / "run", asked, resume=False)
    with pytest.raises(gw.RequestError) as caught:
        running.begin(tmp_path / "run", {**asked, **other}, resume=True)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("said", ["often", "-1", "3600"])
def test_checkpoints_come_at_least_every_minute(said: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(running.EVERY, said)
    with pytest.raises(gw.RequestError, match="expected seconds, from 0 to 60"):
        running.checkpoint_seconds()


def test_the_first_answer_is_there_before_a_slow_strategy_begins(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[Path] = []
    monkeypatch.setattr("graftwork.training.loop.NOTIFY_S", 0.0)

    def keep(outcome: gw.Outcome) -> None:
        saved.append(outcome.save(tmp_path / "m.graft"))
        assert outcome.result.strategy == "probe"

    def notify(progress: Progress) -> None:
        if progress.stage == "training":
            raise Killed

    with pytest.raises(Killed):
        fitted(tmp_path, source, notify, interim=keep)
    assert saved and gw.Model.load(tmp_path / "m.graft").predict(["good fine film"]) == ["a"]
    assert (tmp_path / ".run" / running.REQUEST).exists(), "the first answer must not end the run"


def test_the_curve_of_a_slow_strategy_is_the_probe_s(tmp_path: Path, source: str) -> None:
    curve = fitted(tmp_path, source).result.curve
    assert curve is not None and list(curve.curves) == ["probe"]
    assert curve.sentence.startswith("Learning curve of the probe")


def test_a_budget_too_short_is_answered_by_the_probe(tmp_path: Path, source: str) -> None:
    outcome = fitted(tmp_path, source, budget="0.01s", baselines="all")
    assert outcome.result.strategy == "probe" and "left no time for full" in outcome.result.settings["remark"]
    assert outcome.verdict is None and "left no time for a model without" in str(outcome.result.no_verdict)


def test_a_search_that_is_resumed_when_its_time_is_up_is_asked_for_what_it_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting, "changed_seconds", lambda *_: (0.0, 0.0))
    request = fitting.Request(Auto(), "auto", None, "none", 10.0, 0, None, None, True, tmp_path)
    one = fitting.Fitting(request, None, lambda _: None)
    one.basis, one.dataset = ToyBackbone(), SimpleNamespace(rows=None)  # type: ignore[assignment]
    one.bench = SimpleNamespace(learning=[0], test=[1])  # type: ignore[assignment]
    one.clock.before = 9.0
    for resumed, least in ((False, -1.0), (True, fitting.LEAST_SEARCH_S)):
        one.run = running.Run(tmp_path, 0.0, resumed=resumed)
        seconds = one.search_seconds(0.5)
        assert seconds is not None and least <= seconds < least + 2.0


@pytest.mark.parametrize("resumed", [False, True])
def test_models_without_transfer_that_an_earlier_attempt_made_are_not_left_out(
    resumed: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fitting.finding, "curve_of", lambda *_: None)
    request = fitting.Request(Auto(), "auto", None, "all", 10.0, 0, None, None, True, tmp_path)
    one = fitting.Fitting(request, None, lambda _: None)
    one.bench = SimpleNamespace(rival=lambda name, *_, **__: name)  # type: ignore[assignment]
    one.extraction, one.basis = None, None
    one.clock.before, one.run = 9.9, running.Run(tmp_path, 0.0, resumed=resumed)
    one.judge_rivals(SimpleNamespace(recipe=None, held=None))  # type: ignore[arg-type]
    assert one.left_out is not resumed
    assert list(one.rivals) == (["classical", "scratch"] if resumed else [])


def test_a_slow_strategy_gets_one_repeat_of_folds_and_its_share_of_the_budget(
    tmp_path: Path, source: str
) -> None:
    given: list[float | None] = []

    class Slow(Probe):
        def fit(self, task: Task, *rest: Any) -> Any:
            given.append(task.seconds)
            return super().fit(task, *rest)

    table = a_table(tmp_path)
    table.write_text(table.read_text("utf-8").replace(",test", ",train"), "utf-8")
    recipe = Slow(name="slow", quick=False)
    outcome = gw.fit(table, source=source, strategy=recipe, baselines="none", budget=1200)
    assert outcome.result.assessed_on == "folds" and len(given) == 6
    assert len(set(given)) == 1 and given[0] is not None and 100 < given[0] < 200


def test_an_artefact_takes_the_place_of_another_in_one_step(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    outcome = fitted(tmp_path, source, strategy="probe", settings=None)
    outcome.save(tmp_path / "m.graft")
    real, seen = Path.rename, list[str]()

    def rename(self: Path, target: Path) -> Path:
        seen.append(self.name)
        return real(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    outcome.save(tmp_path / "m.graft")
    if sys.platform == "linux":
        assert not seen, "there was a moment without an artefact"
    assert gw.Model.load(tmp_path / "m.graft").predict(["good film"])
    assert [path.name for path in tmp_path.glob("*m.graft*")] == ["m.graft"]


def test_a_choice_without_transfer_is_judged_by_the_probe(tmp_path: Path, source: str) -> None:
    class Choosing(Probe):
        def fit(self, task: Task, *rest: Any) -> Any:
            model = super().fit(task, *rest)
            trial = {"strategy": "classical", "settings": {}, "rung": 0, "rows": 24, "score": 0.5}
            trial |= {"log_loss": 0.7, "seconds": 1.5, "outcome": "chosen", "reason": "it did best"}
            return replace(model, settings={"chosen": "classical", "trials": [trial]})

    recipe = Choosing(name="auto", quick=False)
    outcome = fitted(tmp_path, source, strategy=recipe, settings=None, baselines="classical", budget=300)
    assert outcome.verdict is not None and "verdict on the probe" in str(outcome.verdict.caution)
    said = outcome_in_words(outcome.result)
    assert "auto: chose classical out of 1 trial in 1.5 s; it did best" in said and "of 300 allowed" in said
    assert wire.result(outcome.result)["trials"][0]["reason"] == "it did best"
    assert "trials" not in outcome.model.settings
