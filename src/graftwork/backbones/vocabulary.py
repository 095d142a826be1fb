"""From a text to places in a table of words, by what kind of words the table holds."""

import re
import unicodedata
from collections.abc import Sequence
from functools import cached_property
from itertools import pairwise

from graftwork.backbones.tfidf import SPACELESS

UNKNOWN = -1
LONGEST = 8
"""Signs of the longest word looked for in a script without spaces."""
_ASKED = 10_000
_RUN = re.compile(f"[{SPACELESS}]")
_PIECE = re.compile(
    # English endings stand apart, as in the Penn treebank, by which GloVe's words were cut
    f"[{SPACELESS}]+|[^\\W{SPACELESS}]+?(?=n['’]t\\b)|n['’]t\\b|['’](?:s|m|d|re|ve|ll)\\b"
    f"|[^\\W{SPACELESS}]+|[^\\w\\s]",
    re.IGNORECASE,
)


class Vocabulary:
    """Known words and how a text is cut into them."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = words
        self.known = {word: place for place, word in enumerate(words)}

    @cached_property
    def characters(self) -> bool:
        """Whether the table is one of single characters, as there are for Chinese."""
        return sum(len(word) == 1 for word in self.words) > len(self.words) / 2

    @cached_property
    def by_frequency(self) -> bool:
        """Whether the words may stand in order of frequency, as the formats' own tools write them.

        They do not where they are sorted by their letters, nor where those at the front are no shorter
        than those that follow: frequent words are short (Zipf's law of abbreviation).
        """
        asked = self.words[:_ASKED]
        rising = sum(a < b for a, b in pairwise(asked))
        if rising > 0.9 * len(asked):
            return False
        third = len(asked) // 3
        lengths = [sum(map(len, part)) for part in (asked[:third], asked[-third:])]
        return self.characters or third == 0 or lengths[0] < 0.95 * lengths[1]

    def places(self, texts: Sequence[str]) -> list[list[int]]:
        """For each text the place of each of its tokens, UNKNOWN for one that is not in the table.

        A table of characters reads every character that is no space. Any other reads what stands
        between spaces; where that is not known, its parts: words, signs, English endings ("n't"), and in
        scripts without spaces the longest known word from each place on. What is not known as written
        is looked for in lower case, then in the compatible form (full-width letters become plain ones).
        """
        found = _Found(self.known)
        if self.characters:
            return [[found[sign] for sign in text if not sign.isspace()] for text in texts]
        return [self._words(text, found) for text in texts]

    def _words(self, text: str, found: "_Found") -> list[int]:
        places: list[int] = []
        for chunk in text.split():
            whole = found[chunk]
            if whole != UNKNOWN:
                places.append(whole)
                continue
            for piece in _PIECE.findall(chunk):
                if _RUN.match(piece):
                    places += self._longest(piece, found)
                else:
                    places.append(found[piece])
        return places

    def _longest(self, run: str, found: "_Found") -> list[int]:
        """Forward longest match."""
        places, start = [], 0
        while start < len(run):
            for length in range(min(LONGEST, len(run) - start), 1, -1):
                place = self.known.get(run[start : start + length])
                if place is not None:
                    break
            else:
                place, length = found[run[start]], 1
            places.append(place)
            start += length
        return places


class _Found(dict[str, int]):
    """Token -> place, each token looked for once."""

    def __init__(self, known: dict[str, int]) -> None:
        self.table = known

    def __missing__(self, token: str) -> int:
        plain = unicodedata.normalize("NFKC", token).replace("’", "'")
        forms = (token, token.lower(), plain, plain.lower())
        place = self[token] = next((self.table[form] for form in forms if form in self.table), UNKNOWN)
        return place
