"""A model hub in a folder, in place of the hub client's two calls; its cache is laid out as the client's."""

import json
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

IMAGE = {"image_processor_type": "ViTImageProcessor", "size": {"height": 8, "width": 8}}


def source(folder: Path, kind: str = "image", seed: int = 0, **config: object) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({"model_type": "vit", **config}))
    name = "preprocessor_config.json" if kind == "image" else "tokenizer.json"
    (folder / name).write_text(json.dumps(IMAGE if kind == "image" else {}))
    weights = np.random.default_rng(seed).normal(size=50).astype(np.float32)
    save_file({"w": weights}, folder / "model.safetensors")
    return folder


def http_error(kind: type[Exception], status: int, message: str = "refused") -> Exception:
    """An error of the hub's client, without the response it is usually made from."""
    error = kind.__new__(kind)
    error.args = (message,)
    error.response = SimpleNamespace(status_code=status)  # type: ignore[attr-defined]
    return error


@dataclass
class FakeHub:
    """repository -> {commit: folder}, the last commit is main. calls: how often the hub was asked."""

    cache: Path
    commits: dict[str, dict[str, Path]] = field(default_factory=dict)
    cards: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    calls: int = 0
    failure: Exception | None = None
    download_failure: Exception | None = None

    @classmethod
    def installed(cls, folder: Path, patch: pytest.MonkeyPatch) -> "FakeHub":
        from huggingface_hub import constants

        from graftwork.sources import hub

        fake = cls(folder)
        patch.setattr(constants, "HF_HUB_CACHE", str(folder))
        patch.setattr(hub, "_card", fake.card)
        patch.setattr(hub, "_snapshot", fake.snapshot)
        patch.delenv("HF_HUB_OFFLINE", raising=False)
        return fake

    def push(self, repository: str, folder: Path, commit: str, licence: str | None = "mit") -> None:
        self.commits.setdefault(repository, {})[commit] = folder
        self.cards[repository] = {"license": licence} if licence else {}

    def card(self, repository: str, revision: str | None) -> Any:
        from huggingface_hub.errors import RepositoryNotFoundError, RevisionNotFoundError

        self.calls += 1
        if self.failure is not None:
            raise self.failure
        if repository not in self.commits:
            raise http_error(RepositoryNotFoundError, 404)
        commits = self.commits[repository]
        commit = list(commits)[-1] if revision in (None, "main") else revision
        if commit not in commits:
            raise http_error(RevisionNotFoundError, 404)
        found = [path for path in commits[commit].rglob("*") if path.is_file()]
        siblings = [SimpleNamespace(rfilename=str(path.relative_to(commits[commit]))) for path in found]
        return SimpleNamespace(sha=commit, siblings=siblings, card_data=self.cards[repository])

    def snapshot(self, repository: str, revision: str, files: list[str]) -> str:
        if self.download_failure is not None:
            raise self.download_failure
        source = self.commits[repository][revision]
        place = self.cache / ("models--" + repository.replace("/", "--"))
        folder = place / "snapshots" / revision
        for name in files:
            if not (folder / name).exists():
                (folder / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(source / name, folder / name)
        (place / "refs").mkdir(exist_ok=True)
        (place / "refs" / "main").write_text(list(self.commits[repository])[-1])
        return str(folder)
