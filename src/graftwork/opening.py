"""An artefact opened: its parts built from verified files, its recorded answers compared with today's.

The parts can be had apart, so that what many artefacts share is built once: `backbone_of`, `head_of`, and
two replays: `replay` asks the backbone too, `replay_head` starts from the features that were recorded.
"""

import hashlib
import platform
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from graftwork import paths, registry
from graftwork.backbones.base import Backbone, BackboneState
from graftwork.errors import ArtefactError, FeatureWidth
from graftwork.examples import probe_rows
from graftwork.manifest import Manifest, SourceEntry, content, inspect
from graftwork.model import Familiarity, Head, Model, softmax
from graftwork.sources import Source

NUMBERS = ("numpy", "torch", "openvino", "tokenizers", "soundfile", "soxr", "onnxruntime")
"""Libraries whose version may change a bit of an answer, as far as they are installed."""
TOLERANCE = 0.02
"""Largest difference of a probability that another kind of machine may show in the replay."""
HEADER = 4_000_000
"""Bytes that the header of a file of arrays may take: far more than any network's tensors need."""
_WRONG = (
    LookupError, TypeError, ValueError, ArithmeticError, AttributeError, AssertionError, RuntimeError,
    MemoryError, FeatureWidth,
)  # fmt: skip
"""What configurations and arrays that do not belong together raise."""


def load(folder: Path, *, offline: bool = False) -> tuple[Model, Manifest]:
    """A model that answers as the saved one did; raises ArtefactError where it would not."""
    manifest = inspect(folder)
    require_known(folder, manifest)
    backbone = backbone_of(folder, manifest, offline=offline)
    model = Model(backbone, *head_of(folder, manifest), manifest.settings)
    replay(folder, manifest, model)
    return model, manifest


def require_known(folder: Path, manifest: Manifest) -> None:
    """Raise ArtefactError where a part is of a kind that is not installed here."""
    for group, part in (("backbones", manifest.backbone), ("heads", manifest.head)):
        if part.name not in registry.names(group):  # type: ignore[arg-type]  # a literal pair above
            raise ArtefactError(f"{folder} needs {group[:-1]} {part.name!r}, which is not installed here")


def backbone_of(folder: Path, manifest: Manifest, *, offline: bool = False) -> Backbone:
    """Its backbone, on the path that this machine can take; the source is found by its digest.

    Raises RequestError where the source is not here, ArtefactError where the parts do not fit.
    """
    from graftwork import sources
    from graftwork.backbones import restore

    source = None
    if manifest.source is not None:
        source = _recorded(folder, manifest.source) or sources.find_by_digest(
            manifest.source.weights_sha256,
            hint=manifest.source.folder or None,
            name=manifest.source.name,
            offline=offline,
        )
    arrays = arrays_of(folder, manifest, "backbone.safetensors")
    with _sound(folder, "backbone"):
        found = restore(BackboneState(manifest.backbone.name, manifest.backbone.config, arrays, source))
        if found.kind != manifest.kind:
            raise ValueError(f"rows of kind {manifest.kind}, a backbone for {found.kind}")
    return found


def head_of(folder: Path, manifest: Manifest) -> tuple[Head, Familiarity | None]:
    """Its head, and what it is familiar with; raises ArtefactError where numbers and labels do not fit."""
    from graftwork.unknown import Familiarity as Known

    arrays = arrays_of(folder, manifest, "head.safetensors")
    known = arrays_of(folder, manifest, "familiarity.safetensors")
    build = registry.get("heads", manifest.head.name)
    with _sound(folder, "head"):
        head: Head = build(tuple(manifest.labels), manifest.head.config, arrays)
        familiar = Known.from_arrays(known) if known else None
        if familiar is not None and familiar.bank.shape[1] != head.width:
            raise ValueError(f"a head of width {head.width}, a bank of width {familiar.bank.shape[1]}")
    return head, familiar


@dataclass(frozen=True)
class Recorded:
    """What the model answered on its probe rows when it was saved: features, probabilities; rows first."""

    features: NDArray[np.float32]
    probabilities: NDArray[np.float64]


def recorded(folder: Path, manifest: Manifest) -> Recorded:
    """The answers recorded in it; raises ArtefactError where there are none, or none of use."""
    found = arrays_of(folder, manifest, "probe/answers.safetensors")
    rows = _probe(manifest)
    whole = found.keys() == {"features", "probabilities"} and manifest.files.keys() >= set(rows)
    if not rows or not whole or {array.shape[:1] for array in found.values()} != {(len(rows),)}:
        raise ArtefactError(
            f"{folder} has no probe rows with their answers, so nothing says whether it still answers as it "
            "did; restore a copy or fit it again"
        )
    features, probabilities = found["features"], found["probabilities"]
    wanted = (len(rows), len(manifest.labels))
    if features.ndim != 2 or features.dtype != np.float32 or probabilities.shape != wanted:
        raise ArtefactError(
            f"{folder} records features of shape {features.shape} ({features.dtype}) and probabilities of "
            f"shape {probabilities.shape} for {len(rows)} probe rows and {len(manifest.labels)} labels; "
            "restore a copy or fit it again"
        )
    return Recorded(features, probabilities)


def replay(folder: Path, manifest: Manifest, model: Model) -> None:
    """Ask the model its probe rows; raises ArtefactError where it answers otherwise than it did."""
    then = recorded(folder, manifest)
    contents = [content(folder, manifest, name) for name in _probe(manifest)]
    with _sound(folder, "model"):
        answers = model.answer(probe_rows(manifest.kind, contents))
    _require_same(folder, manifest, then, answers.features.matrix, answers.probabilities)


def replay_head(folder: Path, manifest: Manifest, head: Head) -> None:
    """Ask the head the features that were recorded, without a network; raises as `replay`."""
    then = recorded(folder, manifest)
    with _sound(folder, "head"):
        probabilities = softmax(head.logits(then.features))
    _require_same(folder, manifest, then, then.features, probabilities)


@cache
def machine() -> str:
    """Names the kind of machine on which answers must be bit-equal: processor, threads, number libraries."""
    from graftwork.backbones.engine import cores

    numbers = " ".join(f"{name} {version(name)}" for name in NUMBERS if find_spec(name) is not None)
    # a product of matrices is rounded differently when it is shared out among more threads
    return f"{platform.machine()} {_processor()} {cores()} threads {numbers}"


def arrays_of(folder: Path, manifest: Manifest, name: str) -> dict[str, NDArray[Any]]:
    """Arrays of a file, read once and verified; none where the manifest lists no such file.

    Raises ArtefactError, among others where a number is none (a threshold may be infinite).
    """
    if name not in manifest.files:
        return {}
    from safetensors import SafetensorError
    from safetensors.numpy import load

    read = content(folder, manifest, name)
    try:
        if int.from_bytes(read[:8], "little") > HEADER:
            raise ValueError(f"a header of more than {HEADER} bytes")
        found = dict(load(read))
        wrong = [one for one, array in found.items() if not _numbers(one, array)]
        if wrong:
            raise ValueError(f"{wrong[0]!r} is no finite {found[wrong[0]].dtype}")
    except (SafetensorError, KeyError, TypeError, ValueError) as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise ArtefactError(
            f"{folder / name} holds no arrays that can be read ({reason}); restore a copy or fit it again"
        ) from error
    return found


def _numbers(name: str, array: NDArray[Any]) -> bool:
    if name == "threshold":  # infinite where nothing is ever unknown
        return not np.isnan(array).any()
    return array.dtype.kind != "f" or bool(np.isfinite(array).all())


def _probe(manifest: Manifest) -> list[str]:
    return [f"probe/row-{i}" for i in range(sum(name.startswith("probe/row-") for name in manifest.files))]


@contextmanager
def _sound(folder: Path, part: str) -> Iterator[None]:
    """Parts that do not fit each other are an ArtefactError, whatever a library says of them."""
    try:
        with np.errstate(all="ignore"):
            yield
    except _WRONG as error:
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:200]
        raise ArtefactError(
            f"the {part} of {folder} cannot be built from what it holds ({reason}); restore a copy or fit it "
            "again"
        ) from error


def _require_same(
    folder: Path,
    manifest: Manifest,
    then: Recorded,
    features: NDArray[np.float32],
    probabilities: NDArray[np.float64],
) -> None:
    if machine() == manifest.machine:
        same = np.array_equal(features, then.features)
        if not same or not np.array_equal(probabilities, then.probabilities):
            raise ArtefactError(
                f"{folder} answers its own probe rows differently than when it was saved, on the same kind "
                "of machine; its source or this installation was altered. Fit it again"
            )
        return
    worst = float(np.abs(then.probabilities - probabilities).max())
    alike = np.array_equal(then.probabilities.argmax(1), probabilities.argmax(1))
    if not worst <= TOLERANCE or not alike:
        raise ArtefactError(
            f"{folder} answers its probe rows differently on this machine (largest difference of a "
            f"probability {worst:.3f}, at most {TOLERANCE} allowed); fit it again here"
        )


def _recorded(folder: Path, entry: SourceEntry) -> Source | None:
    """The source where the manifest says it lies: in the artefact, or (unchanged) where it was found then.

    A family of single files, such as Keras's weights, may also lie in a folder of GRAFT_SOURCES.

    What is loaded of it is verified against these digests; see `Source.verify`.
    """
    outside = [name for name in entry.files if Path(name).is_absolute() or ".." in Path(name).parts]
    listed = entry.files.keys() >= {*(entry.weights or ())}
    if outside or not listed:
        raise ArtefactError(
            f"{folder} names {'files outside' if outside else 'weights that are not among the files of'} its "
            "source; do not trust it"
        )
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
    if not source.weights or source.weights_sha256 != entry.weights_sha256:
        raise ArtefactError(f"{folder} names another source's weights than it lists; restore a copy")
    places = (*((place,) if entry.folder else ()), *paths.source_folders())
    there = (replace(source, folder=one) for one in places)
    return source if entry.bundled else next((one for one in there if one.unchanged()), None)


def _family(entry: SourceEntry) -> str:
    if entry.family is not None:
        return entry.family
    compact = entry.kind == "image" and "preprocessor_config.json" not in entry.files
    return "compact" if compact else "images" if entry.kind == "image" else "texts"


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
