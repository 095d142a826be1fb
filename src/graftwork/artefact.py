"""What was learnt, on disk: saved whole or not at all, checked before anything of it is used.

No pickle and no code: JSON for what is said, safetensors for numbers. `inspect` reads and verifies
without loading; `load` builds the model and replays the probe, a few rows whose features and
probabilities were recorded when the artefact was saved.
"""

import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork import paths
from graftwork.backbones.base import BackboneState
from graftwork.backbones.learnt import KEY as LEARNT
from graftwork.backbones.learnt import PAIRS
from graftwork.errors import RequestError, WorkError
from graftwork.examples import light
from graftwork.examples import probe_rows as probe_rows
from graftwork.examples import synthetic_rows as synthetic_rows
from graftwork.manifest import SCHEMA as SCHEMA
from graftwork.manifest import Manifest as Manifest
from graftwork.manifest import Part as Part
from graftwork.manifest import SourceEntry as SourceEntry
from graftwork.manifest import digest as digest
from graftwork.manifest import files_of, sha256
from graftwork.manifest import inspect as inspect
from graftwork.manifest import sizes as sizes
from graftwork.model import Model
from graftwork.opening import load as load
from graftwork.opening import machine as machine
from graftwork.rows import Rows

SUFFIX = ".graft"


def save(
    model: Model,
    folder: Path,
    *,
    strategy: str,
    result: Mapping[str, Any],
    versions: Mapping[str, str],
    created: str,
    report: str,
    probe: Rows,
    examples: bool = True,
    bundle: bool = False,
    places: bool = True,
) -> Path:
    """Write `folder` (conventionally NAME.graft) whole or not at all and return it.

    `probe` are rows whose answers are recorded for the replay; `examples` says that they are the
    user's own. `bundle` copies the source's files in, so that the artefact needs nothing else. Without
    `places` nothing says where on this machine the source lay; it is then found by its digest alone.
    Raises RequestError where `folder` exists and is no artefact, WorkError where it cannot be written.
    """
    require_free(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        work = Path(tempfile.mkdtemp(prefix=f".{folder.name}.", dir=folder.parent))
    except OSError as error:
        raise WorkError(
            f"{folder.parent} cannot be written ({error.strerror}); choose another place"
        ) from error
    try:
        entry = _write_parts(model, work, probe, report, bundle, places)
        state = model.backbone.state()
        name, config, _ = model.head.state()
        manifest = Manifest(
            schema_version=_schema(state),
            task="classification",
            kind=model.backbone.kind,
            labels=list(model.labels),
            source=entry,
            backbone=Part(name=state.family, config=dict(state.config)),
            fingerprint=model.backbone.fingerprint,
            head=Part(name=name, config=dict(config)),
            strategy=strategy,
            settings=dict(model.settings),
            result=dict(result),
            machine=machine(),
            versions=dict(versions),
            examples=examples,
            created=created,
            files={str(path.relative_to(work)): sha256(path) for path in files_of(work)},
        )
        text = json.dumps(manifest.model_dump(), ensure_ascii=False, indent=1, allow_nan=False)
        (work / "manifest.json").write_text(text, encoding="utf-8")
        _publish(work, folder)
    except OSError as error:
        raise WorkError(
            f"{folder} could not be written ({error.strerror}); nothing was left there"
        ) from error
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return folder


def require_free(folder: Path) -> None:
    """Raise where nothing could be saved to `folder`, before the work is done rather than after.

    RequestError: it would overwrite something that is no artefact, or lie in a file. WorkError: the
    nearest folder above it that exists cannot be written.
    """
    if folder.exists() and not (folder / "manifest.json").is_file():
        raise RequestError(f"{folder} exists and is no artefact; give another name or remove it first")
    above = next(path for path in folder.absolute().parents if path.exists())
    if not above.is_dir():
        raise RequestError(f"{folder} would lie in the file {above}; expected a place in a folder")
    try:
        Path(tempfile.mkdtemp(prefix=".graft-", dir=above)).rmdir()
    except OSError as error:
        raise WorkError(f"{above} cannot be written ({error.strerror}); choose another place") from error


def _schema(state: BackboneState) -> int:
    """The first version that answers as this backbone does; an older one would leave its changes out."""
    if state.source is None:
        return 2
    return SCHEMA if PAIRS in state.config else 3 if {LEARNT, "layers"} & state.config.keys() else 2


def _write_parts(
    model: Model, work: Path, probe: Rows, report: str, bundle: bool, places: bool
) -> SourceEntry | None:
    state = model.backbone.state()
    _write(work / "head.safetensors", model.head.state()[2])
    _write(work / "backbone.safetensors", state.arrays)
    _write(work / "familiarity.safetensors", model.familiarity.arrays() if model.familiarity else {})
    (work / "report.html").write_text(report, encoding="utf-8")
    _write_probe(model, work / "probe", probe)
    if state.source is None:
        return None
    source = state.source
    if bundle:
        for name in source.files:
            target = work / "source" / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source.folder / name, target)
    return SourceEntry.of(source, str(source.folder) if places else "", bundled=bundle)


def _write_probe(model: Model, folder: Path, probe: Rows) -> None:
    folder.mkdir()
    kept = [light(probe.column, i) for i in range(len(probe))]
    for i, content in enumerate(kept):
        (folder / f"row-{i}").write_bytes(content)
    answers = model.answer(probe_rows(probe.kind, kept))
    matrix = np.ascontiguousarray(answers.features.matrix)
    _write(folder / "answers.safetensors", {"features": matrix, "probabilities": answers.probabilities})


def _publish(work: Path, folder: Path) -> None:
    """Flush everything and put the finished folder in its place; an older one is removed last."""
    for path in [*files_of(work), *(p for p in work.rglob("*") if p.is_dir()), work]:
        handle = os.open(path, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
    work.chmod(0o755)
    if not folder.exists():
        work.rename(folder)
        return
    if paths.exchanged(work, folder):
        return  # what lies in `work` now is the older one, which the caller removes
    old = folder.with_name(f".{folder.name}.old-{os.getpid()}")
    folder.rename(old)
    try:
        work.rename(folder)
    except BaseException:  # Ctrl-C among them: the older artefact is whole, so it goes back
        old.rename(folder)
        raise
    shutil.rmtree(old)


def _write(path: Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    if arrays:
        from safetensors.numpy import save

        # not save_file: it gives a file that only its owner may read
        path.write_bytes(save({name: np.ascontiguousarray(array) for name, array in arrays.items()}))
