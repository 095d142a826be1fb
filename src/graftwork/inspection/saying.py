"""An inspection in sentences."""

from collections.abc import Sequence

from graftwork.inspection.record import Inspection, Recordings

SHOWN = 5
"""Examples given of anything; the rest is counted."""
_LISTED = 20
_MANY = 0.2
_UNBALANCED = 3.0


def warnings_of(found: Inspection) -> list[str]:
    said = []
    if found.unreadable:
        name, reason = next(iter(found.unreadable.items()))
        said.append(
            f"{len(found.unreadable)} of {found.rows} rows cannot be read, such as {name}: it {reason}"
        )
    singles = [label for label, count in found.counts.get("train", {}).items() if count == 1]
    if singles:
        said.append(f"{some(singles)}: a single training row; give each class two at least, better ten")
    if found.imbalance >= _UNBALANCED:
        said.append(
            f"classes are unbalanced: the largest has {found.imbalance:.1f} times the mean of the others"
        )
    for part, label in found.absent[:SHOWN]:
        said.append(f"class {label!r} has no row in {part}")
    if len(found.absent) > SHOWN:
        said.append(f"{len(found.absent) - SHOWN} further classes are missing from a part")
    said += _said_of_repeats(found)
    if found.conflicts:
        first = " and ".join(f"{name} ({label})" for name, label in found.conflicts[0][:3])
        said.append(
            f"equal or nearly equal contents under different labels: {len(found.conflicts)}, such as {first}"
        )
    if found.elongated is not None and found.elongated >= _MANY:
        said.append(
            f"{found.elongated:.0%} of the pictures are elongated: --resize fit keeps what cropping loses"
        )
    if found.recordings is not None:
        said += _said_of_recordings(found.recordings)
    return said


def _said_of_recordings(heard: Recordings) -> list[str]:
    said = []
    if heard.silent:
        said.append(
            f"silent recordings: {len(heard.silent)}, such as {heard.silent[0]}; they teach nothing, leave "
            "them out"
        )
    if len(heard.rates) > 1:
        rates = ", ".join(f"{rate} Hz {count} times" for rate, count in list(heard.rates.items())[:SHOWN])
        said.append(f"recordings have different sample rates ({rates}); all are resampled to one")
    if heard.long:
        said.append(
            f"recordings longer than two minutes: {heard.long} (the longest {duration(heard.longest)}); "
            "what is not heard in full is heard in parts spread over it"
        )
    return said


def duration(seconds: float) -> str:
    """A length of time for a person: 0.42 s, 3 min 20 s, 2 h 5 min."""
    if seconds < 60:
        return f"{seconds:.2g} s" if seconds < 1 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60} min"


def _said_of_repeats(found: Inspection) -> list[str]:
    said = []
    if found.exact.within:
        said.append(f"exact repeats of another row of the same part: {found.exact.within}")
    if found.near.within:
        said.append(f"near repeats of another row of the same part: {found.near.within}")
    for how, repeats in (("exact", found.exact), ("near", found.near)):
        for leak in repeats.leaks:
            such = f", such as {leak.examples[0][0]} and {leak.examples[0][1]}" if leak.examples else ""
            said.append(f"{how} copies of {leak.seen_in} rows in {leak.part}: {leak.rows}{such}")
    if found.oversized:
        sizes = some([str(size) for size in found.oversized])
        said.append(f"sets of {sizes} rows look alike; too many to be copies, they are not kept together")
    return said


def in_words(found: Inspection) -> str:
    """The inspection as lines to print."""
    lines = [f"{found.name}: {found.rows} {found.kind} rows, {len(found.labels)} classes"]
    width = max(len(label) for label in found.labels)
    for part, by_label in found.counts.items():
        lines.append(f"{part}: {sum(by_label.values())} labelled rows")
        lines += [f"  {label:<{width}}  {count}" for label, count in by_label.items()]
    if found.recordings is not None:
        heard = found.recordings
        shortest, longest = duration(heard.shortest), duration(heard.longest)
        lines.append(f"lengths: {shortest} to {longest}, half of them under {duration(heard.median)}")
    if found.split_origin == "none":
        lines.append("no test part: fit makes one where there are 1000 labelled rows, else it uses folds")
    unreadable = [f"unreadable: {name} {reason}" for name, reason in found.unreadable.items()]
    lines += unreadable[:_LISTED]
    if len(unreadable) > _LISTED:
        lines.append(f"unreadable: {len(unreadable) - _LISTED} more (--json lists all)")
    lines += [f"note: {note}" for note in (*found.notes, *found.warnings)]
    if not found.warnings:
        lines.append("no unreadable rows, repeats, leaks or contradictions found")
    return "\n".join(lines)


def some(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
