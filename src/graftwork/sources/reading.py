"""From a folder or file to a source, by the first registered reader that recognises it."""

from pathlib import Path
from typing import Any

from graftwork import registry
from graftwork.errors import ArtefactError
from graftwork.sources.source import Origin, Source


def read(
    path: Path,
    *,
    name: str,
    origin: Origin = "local",
    revision: str | None = None,
    licence: str | None = None,
) -> Source:
    """The source in a folder or file, checked as far as is possible without loading it.

    Raises ArtefactError for what no reader recognises or what is damaged, RequestError for a source of
    a kind that cannot be used.
    """
    try:
        reader = _reader(path)
        if reader is None:
            raise ArtefactError(
                f"{path} is no source; expected a folder with config.json and model.safetensors (Hugging "
                "Face form), an ONNX file or folder, or a file of word vectors (.txt, .vec, .bin)"
            )
        found: Source = reader.read(path, name=name, origin=origin, revision=revision, licence=licence)
        return found
    except OSError as error:
        at = error.filename or path
        raise ArtefactError(
            f"{at} cannot be read ({error.strerror or error}); allow that, then run again"
        ) from error


def _reader(path: Path) -> Any | None:
    readers = (registry.get("sources", name) for name in registry.names("sources"))
    return next((reader for reader in readers if reader.recognises(path)), None)
