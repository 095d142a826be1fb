"""Every error a caller may see: one line saying what was seen, what was expected, what to do next."""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, known: Iterable[str]) -> str | None:
    """The known name that `name` may have been meant for, whatever its capitals; None where none is near."""
    lowered = {one.lower(): one for one in known if one != name}
    close = get_close_matches(name.lower(), lowered, n=1)
    return lowered[close[0]] if close else None


class GraftworkError(Exception):
    """Base of all of the project's errors; `exit_status` is what the command line ends with."""

    exit_status = 1


class RequestError(GraftworkError):
    """The request was wrong: another request could succeed (exit status 2, HTTP 4xx).

    code: the kind of fault where the data are at fault, for programs and for words in other languages.
    """

    exit_status = 2
    code = "invalid-data"


class WorkError(GraftworkError):
    """The request was right but the work failed: disk full, interrupted, out of memory (exit status 1)."""


class OneClass(RequestError):
    """The training rows have fewer than two classes."""

    code = "one-class"


class TooFewRows(RequestError):
    """So few that nothing can be held out to test on."""

    code = "too-few-rows"


class RowsUnreadable(RequestError):
    """So many rows cannot be read that the others stand for nothing."""

    code = "rows-unreadable"


class LabelsUnfit(RequestError):
    """The labels are missing, or are no classes."""

    code = "labels-unfit"


class UnreadableWorkbook(RequestError):
    """A workbook is damaged, protected, too large, or none."""

    code = "unreadable-workbook"


class Unreadable(RequestError):
    """One row's content could not be read or decoded; the message is the reason alone."""


class ArtefactError(RequestError):
    """An artefact or a source on disk is damaged, incomplete, altered or of a newer version."""


class FeatureWidth(RequestError):
    """A head was given features of another width than it was fitted on."""

    def __init__(self, head: int, seen: int) -> None:
        super().__init__(
            f"the head takes features of width {head}, these have {seen}; "
            "was another backbone used? Load the artefact again, or fit a new one"
        )


class UnknownName(RequestError):
    """A name that nothing is registered under."""

    def __init__(self, what: str, name: str, known: Iterable[str]) -> None:
        names = sorted(known)
        close = nearest(name, names)
        hint = f"; did you mean {close!r}?" if close else ";"
        super().__init__(f"no {what} {name!r}{hint} known: {', '.join(names) or 'none'}")


class MissingExtra(RequestError):
    """A part of the product that comes with an optional extra which is not installed."""

    def __init__(self, what: str, extra: str) -> None:
        super().__init__(f"{what} needs the extra {extra!r}; try: pip install 'graftwork[{extra}]'")


class Busy(GraftworkError):
    """More is waiting than may wait: the same request will succeed in a while (HTTP 429)."""

    def __init__(self, message: str, after_s: float = 1.0) -> None:
        super().__init__(message)
        self.after_s = after_s
