"""How the report writes numbers and other people's text."""

import math
import re
import unicodedata
from collections.abc import Iterable, Mapping

from markupsafe import Markup, escape

from graftwork.records import Score

SHARES = frozenset({"accuracy", "balanced_accuracy", "macro_f1", "f1", "recall", "precision"})
"""Metrics that are written as a percentage; the others keep three decimals."""

NAMES = {"log_loss": "log-loss", "macro_f1": "macro-F1", "auroc": "AUROC"}
NOUNS = {"image": "picture", "text": "text", "audio": "recording"}
LOWER_IS_BETTER = frozenset({"log_loss", "calibration_error"})
SCORES = {
    "evidence": "log evidence",
    "h_score": "H-score",
    "ridge": "ridge, leave-one-out R²",
    "discriminant": "discriminant, leave-one-out log-likelihood",
    "log_loss": "linear head, leave-one-out log-likelihood",
    "knn": "nearest neighbours, cross-fitted",
    "nce": "NCE",
    "leep": "LEEP",
}
UNMEASURED = "n/a"
_KEPT_FORMATS = "\u200c\u200d"  # the joiners that Persian, Indic scripts and emoji are written with
_MINUS = re.compile(r"(?<![^\s(])-(?=\d)")
_STACK = 4  # no living script puts more marks on one letter


def visible(text: str) -> str:
    """`text` with every character that acts unseen written out as ‹U+XXXX›.

    Those are the bidirectional controls, other controls and formats but the joiners, lone
    surrogates, and line separators. Tabs and line ends become spaces. Of a pile of combining
    marks only the first four are kept, so that no label can paint over its neighbours.
    """
    kept: list[str] = []
    stack = 0
    for character in text:
        category = unicodedata.category(character)
        stack = stack + 1 if category in ("Mn", "Me") else 0
        if character in "\t\n\r":
            kept.append(" ")
        elif category in ("Cc", "Cs", "Zl", "Zp") or (category == "Cf" and character not in _KEPT_FORMATS):
            kept.append(f"‹U+{ord(character):04X}›")
        elif stack <= _STACK:
            kept.append(character)
    return "".join(kept)


def isolated(text: object, limit: int = 400) -> Markup:
    """Text of the user's, escaped, shortened to `limit` characters, apart from its surroundings."""
    shown = visible(str(text))
    if len(shown) > limit:
        shown = shown[: limit - 1] + "…"
    return Markup("<bdi>") + escape(shown or "(empty)") + Markup("</bdi>")


def percent(share: float, digits: int = 1) -> str:
    return f"{100 * share:.{digits}f}%" if math.isfinite(share) else UNMEASURED


def points(difference: float) -> str:
    """A difference of shares, signed, in points: +11.2. The minus is a true one."""
    if not math.isfinite(difference):
        return UNMEASURED
    return f"{100 * difference:+.1f}".replace("-", "−")


def figure(metric: str, value: float) -> str:
    if not math.isfinite(value):
        return UNMEASURED
    return percent(value) if metric in SHARES else f"{value:.3f}"


def between(metric: str, score: Score) -> str:
    """The score's interval: 88.0–93.7%."""
    if not (math.isfinite(score.low) and math.isfinite(score.high)):
        return ""
    return f"{figure(metric, score.low).rstrip('%')}–{figure(metric, score.high)}"


def sentence(said: str, headline: str) -> str:
    """`said` as a sentence of its own below a headline that already says how it begins."""
    shown = _MINUS.sub("−", visible(said)).removeprefix(f"{headline}:").strip()
    return shown[:1].upper() + shown[1:].rstrip(".") + "."


def level(share: float) -> str:
    """A confidence level: 95%, 97.5%."""
    return f"{100 * share:.4g}%"


def metric_name(metric: str) -> str:
    """As it stands within a sentence: balanced accuracy, macro-F1."""
    return NAMES.get(metric, visible(metric).replace("_", " "))


def metric_title(metric: str) -> str:
    """As it begins a line."""
    name = metric_name(metric)
    return name[:1].upper() + name[1:]


def count(number: int, noun: str, plural: str | None = None) -> str:
    """1 row, 2,301 rows."""
    return f"{number:,} {noun if number == 1 else plural or noun + 's'}"


def duration(seconds: float) -> str:
    """Seconds in the unit that reads best: 12 ms, 3.4 s, 2 min 05 s, 1 h 10 min."""
    if not math.isfinite(seconds):
        return UNMEASURED
    if seconds < 0.9995:
        return f"{1000 * seconds:.0f} ms"
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def size(amount: float) -> str:
    """Bytes in the unit that reads best: 820 kB, 8.9 MB, 1.2 GB."""
    for exponent, unit in ((9, "GB"), (6, "MB"), (3, "kB")):
        if amount >= 10**exponent:
            return f"{amount / 10**exponent:.{0 if amount >= 10 ** (exponent + 2) else 1}f} {unit}"
    return count(int(amount), "byte")


def number(value: float, digits: int = 3) -> str:
    """A number of no unit: −0.412."""
    return f"{value:.{digits}f}".replace("-", "−") if math.isfinite(value) else UNMEASURED


def score_title(name: str) -> str:
    """A transferability score's name in words."""
    return SCORES.get(name, visible(name).replace("_", " "))


def chance(probability: float) -> str:
    """A probability in whole percent; none that is estimated is said to be 0 or 100."""
    if not math.isfinite(probability):
        return percent(probability)
    if probability < 0.01:
        return "below 1%"
    return "above 99%" if probability > 0.99 else percent(probability, 0)


def begun(said: str, names: Iterable[str], headline: str = "") -> str:
    """A finding as a sentence of its own, below a headline that may have said how it begins.

    One of the names keeps its spelling where it comes first.
    """
    shown = visible(said).strip().rstrip(".") + "."
    opening = f"{headline}: ".casefold()
    shown = shown[len(opening) :] if shown.casefold().startswith(opening) else shown
    named = any(shown.startswith(name) for name in map(visible, names))
    return _MINUS.sub("−", shown if named else shown[:1].upper() + shown[1:])


def plain(value: object) -> str:
    """A setting as a reader would write it: numbers to six digits, mappings and lists inline."""
    if isinstance(value, bool) or value is None:
        return {True: "yes", False: "no", None: "none"}[value]
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{key} {plain(one)}" for key, one in value.items()) or "none"
    if isinstance(value, list | tuple):
        between = "; " if any(isinstance(one, Mapping) for one in value) else ", "
        return between.join(plain(one) for one in value) or "none"
    return str(value)
