"""A model's files from the Hugging Face hub: configuration, tokenizer and safetensors, never code."""

import errno
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from graftwork.catalogue import entries, near
from graftwork.errors import ArtefactError, RequestError, WorkError
from graftwork.sources.huggingface import FILES

TIMEOUT_S = 10.0
_WEIGHTS = "model.safetensors"
_INDEX = "model.safetensors.index.json"
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES)


@dataclass(frozen=True)
class Fetched:
    """A model's folder in the hub's cache, the commit it is of, and the licence its card states."""

    folder: Path
    revision: str
    licence: str | None


def fetch(name: str, *, offline: bool, pinned: str | None = None, files: Collection[str] = ()) -> Fetched:
    """Hub model `name`, which may end in "@revision", downloaded where it is not in the cache.

    pinned, files: the commit that was pinned and the files it had; where the cache has them, no
    connection is opened. With `offline` none ever is, and RequestError names the file that is missing.
    Raises RequestError for a model that is not there or may not be read, WorkError where the hub does
    not answer.
    """
    repository, revision = parts(name)
    if pinned is not None or offline:
        found = cached(repository, pinned or revision, files)
        if isinstance(found, Fetched):
            return found
        if offline:
            raise RequestError(
                f"offline, and {found} of {repository} is not in this machine's hub cache; "
                "run once without --offline, or name a local directory"
            )
    return _download(repository, pinned or revision, pinned is not None)


def parts(name: str) -> tuple[str, str | None]:
    """(repository, revision or None) of "owner/model@revision"; raises RequestError for what is no hub id."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    repository, _, revision = name.partition("@")
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise RequestError(
            f"{repository!r} is neither a directory here nor a hub id, which looks like owner/model"
        ) from error
    return repository, revision or None


def cached(repository: str, revision: str | None, files: Collection[str] = ()) -> Fetched | str:
    """The model in the hub's cache, or the name of the first file that is not there.

    files: those it must have; by default a configuration and weights.
    """
    from huggingface_hub import try_to_load_from_cache

    folder: Path | None = None
    for file in files or ("config.json", _WEIGHTS):
        found = try_to_load_from_cache(repository, file, revision=revision)
        if not isinstance(found, str) and file == _WEIGHTS and not files:
            found = try_to_load_from_cache(repository, _INDEX, revision=revision)
        if not isinstance(found, str):
            return file
        if folder is None:
            folder = Path(found).parents[len(PurePosixPath(file).parts) - 1]
    assert folder is not None
    return Fetched(folder, folder.name, None)


def _download(repository: str, revision: str | None, pinned: bool) -> Fetched:
    try:
        card = _card(repository, revision)
        wanted = _choose(repository, [entry.rfilename for entry in card.siblings or []])
        folder = _snapshot(repository, str(card.sha), wanted)
    except Exception as error:
        said = _explained(repository, revision, pinned, error)
        if said is None:
            raise
        raise said from error
    return Fetched(Path(folder), str(card.sha), _licence(card))


def _card(repository: str, revision: str | None) -> Any:
    from huggingface_hub import HfApi

    return HfApi().model_info(repository, revision=revision, timeout=TIMEOUT_S)


def _snapshot(repository: str, commit: str, files: list[str]) -> str:
    from huggingface_hub import snapshot_download
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    return str(snapshot_download(repository, revision=commit, allow_patterns=files, etag_timeout=TIMEOUT_S))


def _explained(
    repository: str, revision: str | None, pinned: bool, error: Exception
) -> RequestError | WorkError | None:
    """What to say of an error of the hub's client; None for one that is not the hub's."""
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    if isinstance(error, GatedRepoError):
        return RequestError(
            f"{repository!r} may be read only by those whom its owner lets; ask at "
            f"https://huggingface.co/{repository}, log in with: hf auth login, or name another source"
        )
    if isinstance(error, RevisionNotFoundError) and pinned:
        return RequestError(
            f"the hub has no longer revision {revision} of {repository!r}, which was pinned here; "
            f"to take what it has now: graft sources add {repository}"
        )
    if isinstance(error, RepositoryNotFoundError | RevisionNotFoundError):
        at = f" at {revision}" if revision else ""
        return RequestError(
            f"the hub has no model {repository!r}{at} that you may read{_near(repository)}; check the "
            "spelling, log in where it is private (hf auth login), or name a local directory"
        )
    status = getattr(getattr(error, "response", None), "status_code", None)
    if isinstance(error, HfHubHTTPError) and status in (401, 403):
        return RequestError(
            f"the hub does not let you read {repository!r} (HTTP {status}); log in with: hf auth login, "
            "or name another source"
        )
    if isinstance(error, OSError) and error.errno in _DISK:
        return WorkError(
            f"{error.filename or 'the disk'}: {error.strerror}; free space, or set HF_HOME to where there is"
        )
    # the hub's client changes its HTTP library between versions; each calls its base class so
    carried = any(base.__name__ == "TransportError" for base in type(error).__mro__)
    return _unreachable(repository, error) if isinstance(error, OSError) or carried else None


def _unreachable(repository: str, error: Exception) -> WorkError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return WorkError(
        f"the hub could not be reached for {repository!r} ({reason}); check the connection, use --offline "
        "if the model was fetched before, or name a local directory"
    )


def _near(repository: str) -> str:
    return near(repository, [one.hub for one in entries() if one.hub])


def _choose(repository: str, listed: Sequence[str]) -> list[str]:
    """The few files wanted of a repository's list; only top-level safetensors are weights."""
    weights = [file for file in listed if file.startswith("model") and file.endswith(".safetensors")]
    if not weights:
        if any(PurePosixPath(file).suffix in {".bin", ".pt", ".pth", ".h5"} for file in listed):
            raise ArtefactError(
                f"{repository} offers its weights only in a format that can run code when it is read; "
                "choose a model with model.safetensors"
            )
        raise ArtefactError(f"{repository} has no model.safetensors; choose another model")
    whole = [_WEIGHTS] if _WEIGHTS in weights else weights
    index = [file for file in listed if file == _INDEX and len(whole) > 1]
    return [*(file for file in FILES if file in listed), *whole, *index]


def _licence(card: Any) -> str | None:
    """The licence that the card states; where it says "other", the name it gives it."""
    data = getattr(card, "card_data", None)
    if data is None:
        return None
    stated = data.get("license")
    if stated == "other":
        stated = data.get("license_name") or stated
    if isinstance(stated, list | tuple):
        stated = ", ".join(map(str, stated))
    return str(stated) if stated else None
