"""A model's files from the Hugging Face hub: configuration, tokenizer and safetensors, never code."""

from pathlib import Path, PurePosixPath
from typing import Any

from graftwork.errors import ArtefactError, RequestError, WorkError
from graftwork.sources.huggingface import FILES

TIMEOUT_S = 10.0


def fetch(name: str, *, offline: bool) -> tuple[Path, str, str | None]:
    """(folder, resolved commit, licence) of hub model `name`, which may end in "@revision".

    With `offline` no connection is opened, and RequestError names the file that is missing.
    """
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    repository, _, revision = name.partition("@")
    try:
        validate_repo_id(repository)
    except HFValidationError as error:
        raise RequestError(
            f"{repository!r} is neither a directory here nor a hub id, which looks like owner/model"
        ) from error
    return _cached(repository, revision or None) if offline else _download(repository, revision or None)


def _cached(repository: str, revision: str | None) -> tuple[Path, str, str | None]:
    from huggingface_hub import try_to_load_from_cache

    folder: Path | None = None
    for file in ("config.json", "model.safetensors"):
        found = try_to_load_from_cache(repository, file, revision=revision)
        if not isinstance(found, str) and file == "model.safetensors" and folder is not None:
            found = try_to_load_from_cache(repository, "model.safetensors.index.json", revision=revision)
        if not isinstance(found, str):
            raise RequestError(
                f"offline, and {file} of {repository} is not in this machine's hub cache; "
                "run once without --offline, or name a local directory"
            )
        folder = Path(found).parent
    assert folder is not None
    return folder, folder.name, None


def _download(repository: str, revision: str | None) -> tuple[Path, str, str | None]:
    from huggingface_hub import HfApi, snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, RepositoryNotFoundError, RevisionNotFoundError
    from huggingface_hub.utils.tqdm import disable_progress_bars

    disable_progress_bars()
    try:
        card = HfApi().model_info(repository, revision=revision, timeout=TIMEOUT_S)
        wanted = _choose(repository, [entry.rfilename for entry in card.siblings or []])
        folder = snapshot_download(
            repository, revision=card.sha, allow_patterns=wanted, etag_timeout=TIMEOUT_S
        )
    except (RepositoryNotFoundError, RevisionNotFoundError) as error:
        raise RequestError(
            f"the hub has no model {repository!r}{f' at {revision}' if revision else ''} that you may read; "
            "check the spelling, or name a local directory"
        ) from error
    except (HfHubHTTPError, OSError) as error:
        raise _unreachable(repository, error) from error
    except Exception as error:
        # the hub's client changes its HTTP library between versions; each calls its base class so
        if not any(base.__name__ == "TransportError" for base in type(error).__mro__):
            raise
        raise _unreachable(repository, error) from error
    return Path(folder), str(card.sha), _licence(card)


def _unreachable(repository: str, error: Exception) -> WorkError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
    return WorkError(
        f"the hub could not be reached for {repository!r} ({reason}); check the connection, use --offline "
        "if the model was fetched before, or name a local directory"
    )


def _choose(repository: str, listed: list[str]) -> list[str]:
    """The few files wanted of a repository's list; only top-level safetensors are weights."""
    weights = [file for file in listed if file.startswith("model") and file.endswith(".safetensors")]
    if not weights:
        if any(PurePosixPath(file).suffix in {".bin", ".pt", ".pth", ".h5"} for file in listed):
            raise ArtefactError(
                f"{repository} offers its weights only in a format that can run code when it is read; "
                "choose a model with model.safetensors"
            )
        raise ArtefactError(f"{repository} has no model.safetensors; choose another model")
    whole = ["model.safetensors"] if "model.safetensors" in weights else weights
    index = [file for file in listed if file == "model.safetensors.index.json" and len(whole) > 1]
    return [*(file for file in FILES if file in listed), *whole, *index]


def _licence(card: Any) -> str | None:
    data = getattr(card, "card_data", None)
    stated = data.get("license") if data is not None else None
    return str(stated) if stated else None
