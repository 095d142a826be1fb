"""Who asks: what every route knows of its caller once the middleware has let it through."""

from dataclasses import dataclass

from graftwork.service.database.tables import Scope

RANK: dict[Scope, int] = {"predict": 0, "write": 1, "admin": 2}


@dataclass(frozen=True)
class Caller:
    """An owner's key, or a signed-in page. csrf: what a form of the page must send back."""

    owner_id: str
    owner: str
    scope: Scope
    key_id: str | None
    csrf: str | None = None

    def may(self, scope: Scope) -> bool:
        return RANK[self.scope] >= RANK[scope]
