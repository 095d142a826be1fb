"""What a user may read of a job: nothing of where things lie on the server, nothing that breaks JSON."""

import re
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import graftwork
from graftwork import paths
from graftwork.service.database.tables import Dataset
from graftwork.service.intake.arrange import CONTENTS
from graftwork.service.settings import Settings

HERE = "(on the server)"
LONGEST = 800
"""Characters of an error's words; what is more goes from the middle, as the end says what to do."""
_OPTION = re.compile(
    r"--(text|file|label|group|split|source|strategy|metric|budget|baselines|resize|pooling|seed)\b"
)
_UNSAYABLE = re.compile("[\x00\ud800-\udfff]")


class Said:
    """Texts and JSON as a dataset's owner may read them."""

    def __init__(self, settings: Settings, dataset: Dataset | None = None) -> None:
        contents = None if dataset is None else settings.dataset(dataset.id) / CONTENTS
        self._own = None if contents is None else re.compile(rf"{re.escape(str(contents))}(?:/|(?=\W|$))")
        places = {
            settings.root, settings.home, paths.home(), paths.private(), *paths.source_folders(), Path.home(),
            Path(sys.prefix), Path(graftwork.__file__).parent.parent, Path.cwd(),
        }  # fmt: skip
        said = {str(form) for place in places for form in (place, place.resolve()) if len(form.parts) > 1}
        longest = sorted(said, key=len, reverse=True)
        self._places = re.compile(rf"(?:{'|'.join(map(re.escape, longest))})(?:/[^\s'\"),;:]*)?(?=\W|$)")

    def text(self, text: str) -> str:
        """Files of the dataset by the names that its owner knows, other places not at all."""
        if self._own is not None:
            text = self._own.sub(lambda found: "" if found[0].endswith("/") else "the upload", text)
        return _UNSAYABLE.sub("\ufffd", self._places.sub(HERE, text))

    def problem(self, text: str) -> str:
        """An error's words: one line as `text` of it, options of the command line by their names."""
        said = _OPTION.sub(r"the option \1", " ".join(self.text(text).split()))
        return said if len(said) <= LONGEST else f"{said[: LONGEST - 250]} ... {said[-240:]}"

    def json(self, value: Any) -> Any:
        """The same for every text in plain JSON, keys included."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(key)): self.json(one) for key, one in value.items()}
        if isinstance(value, list | tuple):
            return [self.json(one) for one in value]
        return value
