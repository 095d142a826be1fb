"""Keras applications: `keras:VGG16` with Keras's own weights, `keras:VGG16@FILE` with those of a local file.

Keras runs on torch here, whatever ~/.keras/keras.json says, and keeps its own configuration and
downloads under GRAFT_HOME/keras; files that it fetched before into its usual folder are used as well.
"""

import contextlib
import hashlib
import inspect
import io
import os
import sys
import threading
import zipfile
from collections.abc import Iterator, Mapping
from importlib import import_module
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from graftwork import paths
from graftwork.errors import MissingExtra, RequestError, UnknownName, WorkError
from graftwork.sources.source import Origin, Source, file_digest

SUFFIXES = (".weights.h5", ".h5", ".hdf5", ".keras")
"""Weights files that hold arrays; of a .keras archive the weights alone are read, never its config."""
_lock = threading.RLock()


def named(rest: str, *, offline: bool) -> Source:
    """The source of `keras:ARCHITECTURE` or `keras:ARCHITECTURE@FILE`.

    Raises UnknownName for an architecture that Keras does not have, MissingExtra without Keras,
    RequestError where the file is not there (offline: naming it), WorkError where it cannot be fetched.
    """
    architecture, at, file = rest.partition("@")
    facts = described(architecture)
    path = _given(file, architecture) if at else _fetched(architecture, offline)
    name = f"keras:{architecture}@{path}" if at else f"keras:{architecture}"
    options = {
        "architecture": architecture,
        "size": facts["size"],
        "scaled_twice": _scales_twice(architecture, path),
    }
    digest = file_digest(path)
    origin: Origin = "local" if at else "hub"
    return Source(
        name, "image", "keras", path.parent, {path.name: digest}, (path.name,), origin, options=options
    )


def recognises(path: Path) -> bool:
    return path.is_file() and path.name.lower().endswith(SUFFIXES)


def read(
    path: Path,
    *,
    name: str,
    origin: Origin = "local",
    revision: str | None = None,
    licence: str | None = None,
) -> Source:
    """Always a RequestError: a Keras weights file does not say which network it belongs to."""
    raise RequestError(
        f"{path} holds weights but not the network that they belong to; name the architecture too, "
        f"as in: --source keras:VGG16@{path}"
    )


def library_version() -> str:
    """Keras's version, without importing it; raises MissingExtra."""
    try:
        return version("keras")
    except PackageNotFoundError:
        raise MissingExtra("a Keras application", "keras") from None


def library() -> Any:
    """The keras module on its torch backend; raises MissingExtra, RequestError where it is set otherwise."""
    library_version()
    with _lock:
        if "keras" not in sys.modules:
            # read once, when keras is imported: its home else is the user's, where it writes a keras.json
            with _environment(KERAS_BACKEND="torch", KERAS_HOME=str(paths.home() / "keras")):
                import_module("keras")
    keras = sys.modules["keras"]
    settings = (keras.config.backend(), keras.config.image_data_format(), keras.config.floatx())
    if settings != ("torch", "channels_last", "float32"):
        raise RequestError(
            f"Keras is set to {', '.join(settings)} in this process; expected torch, channels_last, float32: "
            "import graftwork's sources before keras, or set KERAS_BACKEND=torch"
        )
    return keras


def architectures() -> dict[str, Any]:
    """Every image architecture of keras.applications by name."""
    found = vars(library().applications).items()
    return {name: one for name, one in found if inspect.isfunction(one) and name[0].isupper()}


def described(architecture: str) -> dict[str, Any]:
    """{"size": the side of its square input in pixels}, kept: asking the library costs seconds."""
    library_version()

    def ask() -> Mapping[str, Any]:
        function = _function(architecture)
        try:
            with library().device("meta"):  # shapes alone: nothing is allocated
                shape = function(weights=None, include_top=True).input_shape
        except ValueError as error:
            reason = str(error).strip().splitlines()[0]
            raise RequestError(f"keras:{architecture} cannot be used ({reason}); try another one") from error
        # MobileNetV3 takes any size; 224 is what it was trained on
        return {"size": int(shape[1] or 224)}

    return paths.kept("keras-facts", {"architecture": architecture, "keras": library_version()}, ask)


def _function(architecture: str) -> Any:
    known = architectures()
    if architecture not in known:
        raise UnknownName("architecture in keras.applications", architecture, known)
    return known[architecture]


def _given(file: str, architecture: str) -> Path:
    path = Path(file).expanduser()
    if not path.is_file():
        raise RequestError(
            f"no weights file {file!r}; expected keras:{architecture}@FILE with a .weights.h5, .h5 or .keras"
        )
    if not path.name.lower().endswith(SUFFIXES):
        raise RequestError(
            f"{path.name} is no weights file that Keras writes; expected one of {', '.join(SUFFIXES)}"
        )
    if not os.access(path, os.R_OK):
        raise RequestError(f"{path} may not be read by you; allow that, then run again")
    return path.resolve()


def _fetched(architecture: str, offline: bool) -> Path:
    """Keras's own weights without their classifier, fetched where they are not at hand."""
    wanted = _announced(architecture)
    ours = paths.home() / "keras"
    theirs = Path(os.environ.get("KERAS_HOME") or Path.home() / ".keras")
    for folder in (ours, theirs):
        path: Path = folder / "models" / wanted["name"]
        if path.is_file() and _has_hash(path, [wanted["hash"]]):
            return path.resolve()
    place: Path = ours / "models" / wanted["name"]
    if offline:
        raise RequestError(
            f"offline, and {wanted['name']} of keras:{architecture} is neither in {place.parent} nor in "
            f"{theirs / 'models'}; run once without --offline, or name a file: keras:{architecture}@FILE"
        )
    return _download(architecture, wanted, ours)


def _download(architecture: str, wanted: Mapping[str, Any], folder: Path) -> Path:
    get_file = library().utils.get_file
    try:
        with contextlib.redirect_stdout(io.StringIO()):  # its own progress, of hundreds of lines
            found = get_file(
                wanted["name"],
                wanted["origin"],
                cache_dir=str(folder),
                cache_subdir="models",
                file_hash=wanted["hash"],
            )
    except Exception as error:  # it raises Exception itself
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise WorkError(
            f"the weights of keras:{architecture} could not be fetched ({reason}); check the connection, or "
            f"put {wanted['name']} into {folder / 'models'}"
        ) from error
    return Path(found).resolve()


class _Announced(Exception):
    """Carries what Keras was about to download."""


def _announced(architecture: str) -> dict[str, Any]:
    """{"name", "origin", "hash"} of the file that Keras takes for `weights="imagenet"`, kept.

    Keras lists them nowhere but in each architecture's code, so it is asked to build one and stopped
    at the moment when it would download.
    """

    def ask() -> Mapping[str, Any]:
        from unittest.mock import patch

        def stop(fname: str, origin: str, **given: Any) -> None:
            raise _Announced({"name": fname, "origin": origin, "hash": given.get("file_hash")})

        function, side = _function(architecture), described(architecture)["size"]
        try:
            with _lock, patch("keras.src.utils.file_utils.get_file", stop), library().device("meta"):
                function(weights="imagenet", include_top=False, input_shape=(side, side, 3))
        except _Announced as found:
            return dict(found.args[0])
        raise RequestError(f"keras:{architecture} has no weights to fetch; try: keras:{architecture}@FILE")

    key = {"architecture": architecture, "keras": library_version()}
    return paths.kept("keras-files", key, ask)


def _scales_twice(architecture: str, path: Path) -> bool:
    """Whether EfficientNet weights expect their input divided by sqrt(std) once more than normalised.

    Keras adds a layer for it where it loads its own weights, so they and what was trained on from them
    do; a network that began with random weights does not have that second Rescaling.
    """
    if not architecture.startswith("EfficientNetB"):
        return False
    module = sys.modules[_function(architecture).__module__]
    own = [one for pair in module.WEIGHTS_HASHES.values() for one in pair]
    return _has_hash(path, own) or sum(name.startswith("rescaling") for name in _layers(path)) > 1


def _layers(path: Path) -> list[str]:
    """The names of a weights file's layers; none where it cannot be read, which loading it will say."""
    import h5py

    try:
        archive = zipfile.ZipFile(path) if path.suffix == ".keras" else None
        with archive.open("model.weights.h5") if archive else path.open("rb") as raw, h5py.File(raw) as file:
            group = file.get("model_weights", file)
            listed = group.attrs.get("layer_names", file.get("layers", ()))
            return [name.decode() if isinstance(name, bytes) else str(name) for name in listed]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return []


def _has_hash(path: Path, hashes: list[str | None]) -> bool:
    """Whether the file's MD5 or SHA-256 (hex) is among `hashes`, or None is."""
    if None in hashes:
        return True
    with path.open("rb") as file:
        found = {hashlib.file_digest(file, "md5").hexdigest()}
        file.seek(0)
        return not found.union({hashlib.file_digest(file, "sha256").hexdigest()}).isdisjoint(hashes)


@contextlib.contextmanager
def _environment(**values: str) -> Iterator[None]:
    before = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                del os.environ[name]
            else:
                os.environ[name] = value
