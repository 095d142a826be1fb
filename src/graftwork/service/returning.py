"""Signing in leads back to the page that asked for it, and never off this site."""

import re
from urllib.parse import quote, urlencode

from starlette.types import Scope

SIGN_IN = "/sign-in"
HOME = "/"
_LONGEST = 1_000
# "//" and "/\" begin another host's address; browsers drop tabs and line ends before they look
_PATH = re.compile(r"/(?![/\\])[!-\[\]-~]*")


def sign_in_for(scope: Scope) -> str:
    """The sign-in page that leads on to what was asked for."""
    asked = quote(scope["path"], safe="/:@!$&'()*+,;=~")
    if scope["query_string"]:
        asked = f"{asked}?{scope['query_string'].decode('latin-1')}"
    wanted = place(asked) if scope["method"] == "GET" else HOME
    return SIGN_IN if wanted == HOME else f"{SIGN_IN}?{urlencode({'to': wanted}, safe='/')}"


def place(said: str | None) -> str:
    """`said` where it is the address of a page of this site; the start page otherwise."""
    if said is None or len(said) > _LONGEST or not _PATH.fullmatch(said):
        return HOME
    return HOME if said.startswith((SIGN_IN, "/sign-out", "/static/", "/v1")) else said
