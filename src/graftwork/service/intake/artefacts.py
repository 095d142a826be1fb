"""Artefacts of strangers: what they say of themselves is checked, what they say of this machine is dropped.

The source is taken from this machine, found by the digest of its weights: files that come with an artefact
are never opened as a network, and no folder, name or address in it is looked at.
"""

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from graftwork import artefact, sources
from graftwork.datasets.hidden import HIDDEN
from graftwork.errors import GraftworkError
from graftwork.manifest import Manifest, SourceEntry
from graftwork.service.intake import archives
from graftwork.service.intake.names import CLASSES, LABEL, LETTERS
from graftwork.service.problems import Problem, bad_request
from graftwork.service.settings import Limits

ENTRIES = 500
BYTES = 2_000_000_000
HEAD_BYTES = 300_000_000
MANIFEST_BYTES = 20_000_000
INPUTS = {
    **dict.fromkeys(("framing.height", "framing.width", "framing.resize", "size"), 2_048),
    "tokens": 65_536,
    "rate": 400_000,
    "seconds": 120,
    "most": 1_000,
}
"""What an artefact may say of its inputs: pixels a side, tokens of a text; samples a second, seconds and
number of a recording's windows. Memory and time of every prediction follow from them."""
_FILES = re.compile(
    r"manifest\.json|report\.html|(head|backbone|familiarity|probe/answers)\.safetensors|probe/row-\d{1,3}"
)


def take(archive: Path, work: Path, limits: Limits, room: int | None) -> Path:
    """The artefact in a zip, unpacked under `work` and made neutral; it answers its probe rows as recorded.

    Raises a Problem in one line where it is none, is damaged, dangerous, or builds on a source that is not
    here.
    """
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    fewer = Limits(entries=ENTRIES, unpacked=min(BYTES, limits.unpacked), ratio=limits.ratio)
    archives.unpack(archive, work / "unpacked", fewer, room)
    folder = _folder(work / "unpacked")
    shutil.rmtree(folder / "source", ignore_errors=True)
    _require_known_files(folder)
    try:
        _neutral(folder, _described(folder))
        artefact.load(folder, offline=True)
    except Problem:
        raise
    except GraftworkError as error:
        said = str(error).replace(f"{folder}/", "").replace(str(folder), "it")
        raise _refused(said) from error
    except (
        ValueError,
        KeyError,
        TypeError,
        IndexError,
        AttributeError,
        RuntimeError,
        ArithmeticError,
    ) as error:
        # numbers of a shape that no fit would write: what builds on them says so in its own ways
        raise _refused(f"its parts do not fit together: {type(error).__name__}") from error
    return folder


def _folder(unpacked: Path) -> Path:
    """Where the manifest lies: at the top, or in the only folder there."""
    inside = [path for path in unpacked.iterdir() if path.is_dir()]
    places = [unpacked, *inside] if len(inside) == 1 else [unpacked]
    found = next((place for place in places if (place / "manifest.json").is_file()), None)
    if found is None:
        raise bad_request(
            "the archive holds no manifest.json; expected an artefact (NAME.graft), packed as .zip"
        )
    return found


def _require_known_files(folder: Path) -> None:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_file() and not _FILES.fullmatch(name):
            raise bad_request(
                f"the artefact holds {name[:80]!r}, which none has; fit it again or download it again"
            )
    for part in ("head", "familiarity", "probe/answers"):
        path = folder / f"{part}.safetensors"
        if path.is_file() and path.stat().st_size > HEAD_BYTES:
            raise bad_request(f"the artefact's {part} has more than {HEAD_BYTES / 1e6:.0f} MB; fit it again")
    if (folder / "manifest.json").stat().st_size > MANIFEST_BYTES:
        raise bad_request(
            f"the artefact's manifest has more than {MANIFEST_BYTES / 1e6:.0f} MB; fit it again"
        )


def _described(folder: Path) -> Manifest:
    """The manifest, read with nothing of a bundled source, whose files were dropped unread."""
    path = folder / "manifest.json"
    try:
        said = json.loads(path.read_bytes())
        said["files"] = {name: one for name, one in said["files"].items() if not name.startswith("source/")}
        path.write_text(json.dumps(said, allow_nan=False), encoding="utf-8")
    except (ValueError, RecursionError, KeyError, TypeError, AttributeError) as error:
        raise bad_request("the artefact's manifest is damaged; download it again") from error
    manifest = artefact.inspect(folder)
    labels = manifest.labels
    if not 2 <= len(labels) <= CLASSES or len(set(labels)) != len(labels):
        raise bad_request(f"the artefact has {len(labels)} labels; expected 2 to {CLASSES:,} different ones")
    strange = next((one for one in labels if len(one) > LABEL or not one.strip() or HIDDEN.search(one)), None)
    if strange is not None:
        raise bad_request(
            f"the artefact has the label {strange[:40]!a}; expected plain text of {LABEL} characters"
        )
    letters = sum(map(len, labels))
    if letters > LETTERS:
        raise bad_request(
            f"the artefact's labels have {letters:,} characters together; expected {LETTERS:,} at most"
        )
    _require_sane(manifest.backbone.config)
    return manifest


def _require_sane(config: Mapping[str, Any], inside: str = "") -> None:
    """Raise where a network would be asked for inputs that no network takes, and no memory holds."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            _require_sane(value, name)
            continue
        most = INPUTS.get(f"{inside}.{name}", INPUTS.get(name))
        said = value if isinstance(value, list) else [value]
        if most is not None and not all(one is None or (_is_number(one) and 0 < one <= most) for one in said):
            raise bad_request(
                f"the artefact prepares its inputs with {name} = {str(value)[:40]}; expected {most:,} at "
                "most: fit it again"
            )


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _neutral(folder: Path, manifest: Manifest) -> None:
    """Write the manifest anew with the source as it lies here."""
    entry = manifest.source
    changed = manifest if entry is None else manifest.model_copy(update={"source": _here(entry)})
    text = json.dumps(changed.model_dump(), ensure_ascii=False, indent=1, allow_nan=False)
    (folder / "manifest.json").write_text(text, encoding="utf-8")


def _here(entry: SourceEntry) -> SourceEntry:
    for source in sources.available(entry.kind):
        if source.weights_sha256 == entry.weights_sha256:
            return SourceEntry.of(source, "")
    raise bad_request(
        f"the artefact builds on the source {entry.name[:80]!r} (weights {entry.weights_sha256[:12]}...), "
        "which this server lacks; ask whoever runs it to add that source (graft sources), then import again"
    )


def _refused(reason: str) -> Problem:
    return bad_request(
        f"the artefact was refused ({' '.join(reason.split())[:300]}); download or fit it again"
    )
