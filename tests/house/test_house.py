"""The house's own rules: who may import whom, how large a module may grow, what starts quickly."""

import ast
import subprocess
import sys
from importlib.metadata import distributions
from pathlib import Path

import pytest

import graftwork as gw

SRC = Path(__file__).parents[2] / "src" / "graftwork"
MODULES = sorted(SRC.rglob("*.py"))
ORDER = """
errors rows records registry paths signatures images sounds datasets sources catalogue seen networks
backbones store inspection examples spectrum transferability logistic heads kernel_head model training
strategies search intervals evaluation verdict folds curve unknown ranking pretraining opening artefact
""".split()
JOINERS = """
showing wire words remembered bench starting choosing checking report running outcome timing finding
fitting transfer serving
estimator demo inputs
service client
doctor console cli
""".split()


def layer(path: Path) -> str:
    return path.relative_to(SRC).with_suffix("").parts[0]


def imported(path: Path) -> set[str]:
    """Modules of the package that `path` imports when it is imported itself (not inside functions)."""
    found: set[str] = set()
    for node in ast.parse(path.read_text("utf-8")).body:
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("graftwork"):
            parts = node.module.split(".")
            found |= {parts[1]} if len(parts) > 1 else {alias.name for alias in node.names}
        elif isinstance(node, ast.Import):
            found |= {alias.name.split(".")[1] for alias in node.names if alias.name.startswith("graftwork.")}
    return found


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SRC)))
def test_no_module_reaches_up_to_a_joiner_or_the_edge(path: Path) -> None:
    if layer(path) in ORDER:
        assert not imported(path) & set(JOINERS)


def test_imports_have_no_cycle() -> None:
    graph = {layer(path): set[str]() for path in MODULES}
    for path in MODULES:
        graph[layer(path)] |= imported(path) - {layer(path)}
    done: list[str] = []
    while graph:
        free = [name for name, needs in graph.items() if not needs & set(graph)]
        assert free, f"these import each other in a circle: {sorted(graph)}"
        for name in free:
            done.append(name)
            del graph[name]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(SRC)))
def test_modules_stay_readable_in_one_sitting(path: Path) -> None:
    assert len(path.read_text("utf-8").splitlines()) <= 440


def test_public_names_are_few_and_all_there() -> None:
    assert len(gw.__all__) <= 17
    for name in gw.__all__:
        assert getattr(gw, name).__doc__, name


HEAVY = ("torch", "transformers", "sklearn", "openvino", "scipy", "pyarrow", "pandas", "PIL", "numpy", "rich")


@pytest.mark.parametrize("statement", ["import graftwork", "import graftwork.cli"])
def test_starting_imports_nothing_heavy(statement: str) -> None:
    code = f"{statement}; import sys; print([m for m in {HEAVY} if m in sys.modules])"
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert said.strip() == "[]"


def test_no_build_of_torchvision_or_torchaudio_came_in() -> None:
    installed = {one.metadata["Name"].lower() for one in distributions()}
    assert not installed & {"torchvision", "torchaudio"}
