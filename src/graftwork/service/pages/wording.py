"""The page's words in each of its languages; no other file of the page holds any."""

import json
from collections.abc import Mapping
from functools import cache
from pathlib import Path

from markupsafe import Markup
from starlette.requests import Request

LANGUAGES = {"en": "English", "zh": "中文"}
COOKIE = "language"
_FOLDER = Path(__file__).parent / "words"
_SPOKEN = ("js.", "metric.", "state.", "problem.")


@cache
def read(language: str) -> Mapping[str, str]:
    """All words of one language, by key."""
    found: Mapping[str, str] = json.loads((_FOLDER / f"{language}.json").read_text(encoding="utf-8"))
    return found


class Words:
    """The words of one language: `t("rows", n=3)` is "3 rows", escaped and safe to put into a page.

    Where n is 1 and the words know a key ending in ".one", that one is taken.
    """

    def __init__(self, language: str) -> None:
        self._words = read(language)

    def __call__(self, key: str, /, **values: object) -> Markup:
        if values.get("n") == 1 and f"{key}.one" in self._words:
            key += ".one"
        shown = {name: f"{one:,}" if isinstance(one, int) else one for name, one in values.items()}
        # the words are ours, the values are not: Markup escapes what it fills in
        return Markup(self._words[key]).format(**shown)

    def has(self, key: str) -> bool:
        return key in self._words

    def spoken(self) -> dict[str, str]:
        """What the scripts say; theirs alone without the prefix."""
        return {key.removeprefix("js."): word for key, word in self._words.items() if key.startswith(_SPOKEN)}


def language_of(request: Request) -> str:
    """As asked in the address, else as kept in the cookie, else as the browser prefers, else English."""
    for said in (request.query_params.get("language"), request.cookies.get(COOKIE)):
        if said in LANGUAGES:
            return said
    wanted: list[tuple[float, int, str]] = []
    for one in request.headers.get("accept-language", "")[:500].split(","):
        name, _, weight = one.strip().partition(";q=")
        language = name[:2].lower()
        if language in LANGUAGES:
            try:
                wanted.append((-float(weight or 1), len(wanted), language))
            except ValueError:
                continue
    return min(wanted)[2] if wanted else "en"
