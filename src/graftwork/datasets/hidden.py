"""Characters that nobody sees and that change what is seen: controls, marks of direction, halves of pairs."""

import re

_CONTROLS = "\x00-\x08\x0e-\x1f\x7f-\x84\x86-\x9f"
# U+200D joins the parts of an emoji, U+200C letters of some scripts: both stay
_DIRECTIONS = "\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069"
_INVISIBLE = "\u200b\u2060\ufeff\ufff9-\ufffb"
_HALVES = "\ud800-\udfff"
HIDDEN = re.compile(f"[{_CONTROLS}{_DIRECTIONS}{_INVISIBLE}{_HALVES}]")
_BREAKS = re.compile("[\\t\\n\\v\\f\\r\x1c-\x1e\x85\u2028\u2029]+")


def without_hidden(text: str) -> str:
    """`text` on one line without what is hidden in it, so that two labels that look alike are alike."""
    return HIDDEN.sub("", _BREAKS.sub(" ", text))
