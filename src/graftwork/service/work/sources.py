"""Which sources a user of the service may name: those that its operator has put on the machine."""

from collections.abc import Sequence

from graftwork import catalogue, sources
from graftwork.errors import UnknownName
from graftwork.rows import Kind
from graftwork.service.problems import bad_request


def require_allowed(names: Sequence[str], kind: Kind | None, *, offline: bool) -> None:
    """Raise a Problem where a name is neither of a source on this machine nor (online) of the catalogue.

    A path or a hub's address is never taken from a user: it would open what lies there, or fetch it.
    """
    here = {source.name for source in sources.available(kind)}
    known = here if offline else here | {one.name for one in catalogue.entries() if kind in (None, one.kind)}
    for name in names:
        if name not in known:
            raise bad_request(str(UnknownName("source", name[:100], known)))
