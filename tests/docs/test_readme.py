"""The README's commands and code are run as written; every command and option is documented."""

import re
import shlex
import shutil
from importlib.resources import files
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from graftwork.cli import app

pytestmark = pytest.mark.usefixtures("brisk")

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text("utf-8")


def blocks(language: str) -> list[str]:
    found = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)
    return [text for one, text in found if one == language]


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder with a table of tickets, as a reader would have."""
    shutil.copy(str(files("graftwork") / "packaged" / "messages.csv"), tmp_path / "tickets.csv")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_python_examples_run_in_order(here: Path) -> None:
    names: dict[str, object] = {}
    for block in blocks("python"):
        exec(compile(block, "README.md", "exec"), names)
    assert (here / "tickets.graft" / "manifest.json").is_file()


def test_the_shell_examples_of_graft_run(here: Path) -> None:
    commands = [line for block in blocks("sh") for line in block.splitlines() if line.startswith("graft ")]
    assert len(commands) >= 2
    for command in commands:
        done = CliRunner().invoke(app, shlex.split(command)[1:])
        assert done.exit_code == 0, (command, done.stderr, done.exception)


def test_the_make_commands_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    commands = [
        line.split()[1] for block in blocks("sh") for line in block.splitlines() if line[:5] == "make "
    ]
    assert {"demo", "test"} <= set(commands)
    for target in commands:
        assert re.search(rf"^{target}:", makefile, re.MULTILINE), target


def test_every_command_is_in_the_readme_and_every_verb_exists() -> None:
    click_app = typer.main.get_command(app)
    listed = set(re.findall(r"^graft (\w+)", "\n".join(blocks("")), re.MULTILINE))
    assert set(click_app.commands) == listed  # type: ignore[attr-defined]


def test_every_command_takes_json_and_quiet() -> None:
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        for one in getattr(command, "commands", {name: command}).values():
            options = {option for parameter in one.params for option in parameter.opts}
            assert {"--json", "--quiet"} <= options, name


def test_linked_files_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
