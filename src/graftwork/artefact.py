"""What was learnt, on disk: saved whole or not at all, checked before anything of it is used.

No pickle and no code: JSON for what is said, safetensors for numbers. `inspect` reads and verifies
without loading; `load` builds the model and replays the probe, a few rows whose features and
probabilities were recorded when the artefact was saved.
"""

import hashlib
import json
import os
import platform
import shutil
import tempfile
from collections.abc import Mapping
from dataclasses import replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork import paths, registry
from graftwork.backbones.base import BackboneState
from graftwork.backbones.learnt import KEY as LEARNT
from graftwork.errors import ArtefactError, RequestError, WorkError
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
from graftwork.rows import Rows
from graftwork.sources import Source

SUFFIX = ".graft"
NUMBERS = ("numpy", "torch", "openvino", "tokenizers", "soundfile", "soxr", "onnxruntime")
"""Libraries whose version may change a bit of an answer, as far as they are installed."""
TOLERANCE = 0.02
"""Largest difference of a probability that another kind of machine may show in the replay."""


def machine() -> str:
    """Names the kind of machine on which answers must be bit-equal: processor, threads, number libraries."""
    from graftwork.backbones.engine import cores

    numbers = " ".join(f"{name} {version(name)}" for name in NUMBERS if find_spec(name) is not None)
    # a product of matrices is rounded differently when it is shared out among more threads
    return f"{platform.machine()} {_processor()} {cores()} threads {numbers}"


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
) -> Path:
    """Write `folder` (conventionally NAME.graft) whole or not at all and return it.

    `probe` are rows whose answers are recorded for the replay; `examples` says that they are the
    user's own. `bundle` copies the source's files in, so that the artefact needs nothing else.
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
        entry = _write_parts(model, work, probe, report, bundle)
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


def load(folder: Path, *, offline: bool = False) -> tuple[Model, Manifest]:
    """A model that answers as the saved one did; raises ArtefactError where it would not."""
    from graftwork import sources

    manifest = inspect(folder)
    for group, part in (("backbones", manifest.backbone), ("heads", manifest.head)):
        if part.name not in registry.names(group):  # type: ignore[arg-type]  # a literal pair above
            raise ArtefactError(f"{folder} needs {group[:-1]} {part.name!r}, which is not installed here")
    source = None
    if manifest.source is not None:
        source = _recorded(folder, manifest.source) or sources.find_by_digest(
            manifest.source.weights_sha256,
            hint=manifest.source.folder,
            name=manifest.source.name,
            offline=offline,
        )
    model = _build(folder, manifest, source)
    _replay(folder, manifest, model)
    return model, manifest


def _build(folder: Path, manifest: Manifest, source: Source | None) -> Model:
    from graftwork.backbones import restore
    from graftwork.unknown import Familiarity

    arrays = _read(folder, manifest, "backbone.safetensors")
    backbone = restore(BackboneState(manifest.backbone.name, manifest.backbone.config, arrays, source))
    head = registry.get("heads", manifest.head.name)(
        tuple(manifest.labels), manifest.head.config, _read(folder, manifest, "head.safetensors")
    )
    known = _read(folder, manifest, "familiarity.safetensors")
    return Model(backbone, head, Familiarity.from_arrays(known) if known else None, manifest.settings)


def _schema(state: BackboneState) -> int:
    """The first version that answers as this backbone does; an older one would leave its changes out."""
    changed = {LEARNT, "layers"} & state.config.keys() if state.source is not None else ()
    return SCHEMA if changed else 2


def _write_parts(model: Model, work: Path, probe: Rows, report: str, bundle: bool) -> SourceEntry | None:
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
    return SourceEntry(
        name=source.name,
        kind=source.kind,
        folder=str(source.folder),
        files=dict(source.files),
        origin=source.origin,
        revision=source.revision,
        licence=source.licence,
        weights_sha256=source.weights_sha256,
        bundled=bundle,
        family=source.family,
        weights=list(source.weights),
        options=dict(source.options),
    )


def _write_probe(model: Model, folder: Path, probe: Rows) -> None:
    folder.mkdir()
    kept = [light(probe.column, i) for i in range(len(probe))]
    for i, content in enumerate(kept):
        (folder / f"row-{i}").write_bytes(content)
    answers = model.answer(probe_rows(probe.kind, kept))
    matrix = np.ascontiguousarray(answers.features.matrix)
    _write(folder / "answers.safetensors", {"features": matrix, "probabilities": answers.probabilities})


def _replay(folder: Path, manifest: Manifest, model: Model) -> None:
    """Compare today's answers with the recorded ones; raises ArtefactError where they differ."""
    recorded = _read(folder, manifest, "probe/answers.safetensors")
    rows = [f"probe/row-{i}" for i in range(sum(name.startswith("probe/row-") for name in manifest.files))]
    whole = recorded.keys() == {"features", "probabilities"} and manifest.files.keys() >= set(rows)
    if not rows or not whole or {len(array) for array in recorded.values()} != {len(rows)}:
        raise ArtefactError(
            f"{folder} has no probe rows with their answers, so nothing says whether it still answers as it "
            "did; restore a copy or fit it again"
        )
    contents = [(folder / name).read_bytes() for name in rows]
    answers = model.answer(probe_rows(manifest.kind, contents))
    if machine() == manifest.machine:
        same = np.array_equal(answers.features.matrix, recorded["features"])
        if not same or not np.array_equal(answers.probabilities, recorded["probabilities"]):
            raise ArtefactError(
                f"{folder} answers its own probe rows differently than when it was saved, on the same kind "
                "of machine; its source or this installation was altered. Fit it again"
            )
        return
    then, now = recorded["probabilities"], answers.probabilities
    worst = float(np.abs(then - now).max())
    if worst > TOLERANCE or not np.array_equal(then.argmax(1), now.argmax(1)):
        raise ArtefactError(
            f"{folder} answers its probe rows differently on this machine (largest difference of a "
            f"probability {worst:.3f}, at most {TOLERANCE} allowed); fit it again here"
        )


def _recorded(folder: Path, entry: SourceEntry) -> Source | None:
    """The source where the manifest says it lies: in the artefact, or (unchanged) where it was found then.

    A family of single files, such as Keras's weights, may also lie in a folder of GRAFT_SOURCES.

    What is loaded of it is verified against these digests; see `Source.verify`.
    """
    place = folder / "source" if entry.bundled else Path(entry.folder)
    weights = [name for name in entry.files if name.endswith(".safetensors")]
    source = Source(
        entry.name,
        entry.kind,
        _family(entry),
        place,
        entry.files,
        tuple(weights if entry.weights is None else entry.weights),
        entry.origin,
        entry.revision,
        entry.licence,
        entry.options,
    )
    if source.weights_sha256 != entry.weights_sha256:
        raise ArtefactError(f"{folder} names another source's weights than it lists; restore a copy")
    places = (place, *paths.source_folders())
    there = (replace(source, folder=one) for one in places)
    return source if entry.bundled else next((one for one in there if one.unchanged()), None)


def _family(entry: SourceEntry) -> str:
    if entry.family is not None:
        return entry.family
    compact = entry.kind == "image" and "preprocessor_config.json" not in entry.files
    return "compact" if compact else "images" if entry.kind == "image" else "texts"


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


def _read(folder: Path, manifest: Manifest, name: str) -> dict[str, NDArray[Any]]:
    """Arrays of a file that the manifest lists, and so verified; none where it lists no such file."""
    if name not in manifest.files:
        return {}
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        return dict(load_file(folder / name))
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ArtefactError(
            f"{folder / name} holds no arrays that can be read ({reason}); restore a copy or fit it again"
        ) from error


def _processor() -> str:
    """The processor's model name and its vector instructions, which decide how sums are rounded."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    said = dict(line.split(":", 1) for line in lines if ":" in line)
    fields = {key.strip(): value.strip() for key, value in said.items()}
    wide = sorted(f for f in fields.get("flags", "").split() if f.startswith(("avx", "amx", "fma")))
    name = fields.get("model name", platform.processor())
    model = " ".join(fields.get(key, "") for key in ("cpu family", "model", "stepping"))
    return f"{name} {model} {hashlib.sha256(' '.join(wide).encode()).hexdigest()[:8]}"
