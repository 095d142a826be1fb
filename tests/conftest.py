"""Shared fixtures: a home of its own for every session, and real data where there is any."""

import os
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).parent.parent

# the same examples on every machine, however slow it is: what passes once does not fail another time
settings.register_profile(
    "same", derandomize=True, deadline=None, database=None, suppress_health_check=[HealthCheck.too_slow]
)
settings.load_profile("same")


SETTLED = ("converted", "digests", "parity")
"""Facts of this machine and of unchanged files: the same for every test, so settled once a session."""


@pytest.fixture(scope="session")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("settled")
    for name in SETTLED:
        (folder / name).mkdir()
    return folder


@pytest.fixture
def settled_home(home: Path, settled: Path) -> Path:
    """GRAFT_HOME without features, in which this machine's facts are settled: for tests of whole fits."""
    for name in SETTLED:
        (home / name).symlink_to(settled / name)
    return home


@pytest.fixture
def brisk(settled_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whole fits in seconds: a learning curve of few points, little time for networks from scratch."""
    monkeypatch.setattr("graftwork.bench.CURVE_SECONDS", 0.3)
    monkeypatch.setattr("graftwork.fitting.SCRATCH_SECONDS", 1.0)


@pytest.fixture(autouse=True)
def home(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """GRAFT_HOME in an empty folder, so that no test reads what another (or the user) has stored."""
    folder = tmp_path_factory.mktemp("home")
    monkeypatch.setenv("GRAFT_HOME", str(folder))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("GRAFT_SOURCES", raising=False)
    return folder


def _real(variable: str, default: str) -> Path:
    return Path(os.environ.get(variable, ROOT.parent / "shared" / default)).resolve()


@pytest.fixture
def real_data() -> Path:
    """The folder of real data sets; skips with the reason where there is none."""
    folder = _real("GRAFT_TEST_DATA", "data")
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder}; set GRAFT_TEST_DATA")
    return folder


@pytest.fixture
def real_models() -> Path:
    """The folder of real pretrained models; skips with the reason where there is none."""
    folder = _real("GRAFT_TEST_MODELS", "models")
    if not folder.is_dir():
        pytest.skip(f"no real models at {folder}; set GRAFT_TEST_MODELS")
    return folder
