"""`graft sources`: the pretrained models known, those at hand, and whether they are sound."""

from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from graftwork import console
from graftwork.cli.app import Json, Offline, Quiet, app, guarded
from graftwork.errors import GraftworkError, RequestError, UnknownName

if TYPE_CHECKING:
    from graftwork.sources.listing import Known

WIDTH = 100
_NAME, _LICENCE, _PURPOSE = 40, 13, 8
_ACTIONS = ("list", "show", "add", "check", "remove")


@app.command()
@guarded
def sources(
    action: Annotated[str, typer.Argument(help="list, show, add, check or remove.")] = "list",
    name: Annotated[str | None, typer.Argument(help="A source's name, folder, file or hub id.")] = None,
    kind: Annotated[str | None, typer.Option(help="List or check: image, text or audio.")] = None,
    licence: Annotated[
        str | None, typer.Option(help="List or check: of this licence, or commercial. Add: its licence.")
    ] = None,
    size: Annotated[str | None, typer.Option(help="List or check: small, medium or large.")] = None,
    language: Annotated[str | None, typer.Option(help="List or check: en, zh, code...")] = None,
    local: Annotated[bool, typer.Option("--local", help="List only what is on this machine.")] = False,
    named: Annotated[str | None, typer.Option("--name", help="Add: register it under this name.")] = None,
    json: Json = False,
    quiet: Quiet = False,
    offline: Offline = False,
) -> None:
    """List the pretrained models known, show one, add one, or check that what is here is sound.

    add PATH registers a local one under its name, with its files' digests; add HUB_ID fetches one and
    pins its commit. A source that changes later is refused until it is added again. remove forgets
    one, and leaves its files. check compares every file, loads the network and extracts made-up rows.
    """
    if action not in _ACTIONS:
        raise RequestError(f"sources has no action {action!r}; expected {', '.join(_ACTIONS[:-1])} or remove")
    filters = {"kind": _kind(kind), "licence": licence, "size": size, "language": language}
    _refuse_strays(action, name, {**filters, "local": local or None}, named)
    if action == "list":
        _list({**filters, "local": local}, json, quiet)
    elif action == "check":
        _check(name, filters, json, quiet, offline)
    elif name is None:
        raise RequestError(f"which source? Expected a name, as in: graft sources {action} minilm")
    elif action == "show":
        _show(name, json)
    elif action == "add":
        _add(name, named, licence, json, quiet, offline)
    else:
        from graftwork.sources import registered

        registered.remove(name)
        _answer({"removed": name}, f"forgot {name}; its files stay where they are", json)


def _list(filters: dict[str, Any], json: bool, quiet: bool) -> None:
    from graftwork.sources.listing import listing

    found = listing(**filters)
    if json:
        console.emit({"sources": [one.plain() for one in found]})
        return
    if not found:
        raise RequestError("no source known fits these filters; try: graft sources")
    console.say(listed(found))
    if any(one.plain()["commercial_use"] is False for one in found):
        console.say("* its licence forbids commercial use")
    note = "operations: multiply-adds a row. What is not here is fetched when it is named with --source."
    console.note(note, quiet=quiet)


def listed(found: "list[Known]") -> str:
    """A table of at most 100 columns: what a source is for gives way first, then long names."""
    rows = [_row(one) for one in found]
    head = ["name", "kind", "parameters", "operations", "width", "licence", "for", "here"]
    widths = [max(len(row[i]) for row in [head, *rows]) for i in range(len(head))]
    over = sum(widths) + 2 * (len(head) - 1) - WIDTH
    purpose = max(_PURPOSE, widths[6] - max(0, over))
    name = max(_PURPOSE, widths[0] - max(0, over - (widths[6] - purpose)))
    return console.table(
        head, [[_within(row[0], name), *row[1:6], _cut(row[6], purpose), row[7]] for row in rows]
    )


def _row(one: "Known") -> list[str]:
    stated = one.plain()
    mark = "*" if stated["commercial_use"] is False else ""
    purpose = ", ".join(dict.fromkeys(part for part in (stated["domain"], *stated["languages"]) if part))
    return [
        one.name,
        one.kind or "-",
        _short(stated["parameters"]),
        _short(stated["operations"]),
        str(stated["width"] or "-"),
        _cut(stated["licence"] or "not stated", _LICENCE) + mark,
        purpose or "-",
        "unsound" if one.fault and one.where else "yes" if one.where else "-",
    ]


def _show(name: str, json: bool) -> None:
    from graftwork import catalogue
    from graftwork.sources.listing import look_up

    found = look_up(name).plain()
    if json:
        console.emit({"sources": [found]})
        return
    if found["commercial_use"] is False:
        found["licence"] += " (forbids commercial use)"
    for key in ("parameters", "operations"):
        found[key] = None if found[key] is None else f"{found[key]:,}"
    found["commercial_use"] = {True: "allowed", False: "forbidden", None: "not known"}[
        found["commercial_use"]
    ]
    said = catalogue.input_in_words(found["kind"], found.pop("input_size"))
    found = {key: value for key, value in {**found, "input": said}.items() if value not in (None, [], {})}
    console.say(console.described(found))


def _add(name: str, named: str | None, licence: str | None, json: bool, quiet: bool, offline: bool) -> None:
    from graftwork import paths, registry
    from graftwork.sources import finding, registered

    if finding.exists(name):
        path = Path(name).expanduser().resolve()
        source = registered.add(path, name=named, licence=licence)
        said = f"added   {source.name} ({source.kind}): {path}"
    else:
        if name.partition(":")[0] in registry.names("schemes"):
            raise RequestError(f"{name!r} needs no adding; use it as it stands: --source {name}")
        address = finding.hub_address(name)
        if address is None:
            raise RequestError(
                f"nothing to add at {name!r}; expected a folder or file that exists, a name of the catalogue "
                "or a hub id (owner/model)"
            )
        if named is not None or licence is not None:
            raise RequestError(
                f"{name!r} is a hub model, which keeps its own name and licence; leave them out"
            )
        source = finding.from_hub(address, offline=offline or paths.offline(), afresh=True)
        said = f"pinned  {address} ({source.kind}) at {source.revision}: {source.folder}"
    _note_licence(source.name, source.licence, json or quiet)
    plain = {
        "name": source.name,
        "kind": source.kind,
        "licence": source.licence,
        "revision": source.revision,
        "folder": str(source.folder),
        "files": dict(source.files),
    }
    _answer({"source": plain}, f"{said}\ntry     graft fit DATA -o NAME.graft --source {source.name}", json)


def _check(name: str | None, filters: dict[str, Any], json: bool, quiet: bool, offline: bool) -> None:
    """The one that is named, or all; of all status 2 where anything is wrong, after everything was said."""
    from graftwork.sources.listing import listing

    names = [one.name for one in listing(**filters, local=True)] if name is None else [name]
    if not names:
        raise RequestError("no source on this machine fits these filters; try: graft sources")
    found = []
    with console.progress(quiet or json) as notify:
        for one in names:
            try:
                found.append(_checked(one, offline, notify))
            except GraftworkError as error:
                if name is not None:
                    raise
                found.append({"name": one, "fault": str(error)})
    if json:
        console.emit({"checked": found})
    else:
        _say_checked(found)
    if any(one["fault"] is not None for one in found):
        raise SystemExit(2)


def _say_checked(found: list[dict[str, Any]]) -> None:
    head = ("name", "kind", "files", "width", "runtime", "parity", "seconds")
    sound = [_outcome(one) for one in found if one["fault"] is None]
    if sound:
        console.say(console.table(head, sound))
    for one in found:
        if one["fault"] is not None:
            console.say(f"unsound: {one['name']}: {one['fault']}")


def _checked(name: str, offline: bool, notify: Any) -> dict[str, Any]:
    from graftwork import checking
    from graftwork.sources import find

    return {**asdict(checking.check(find(name, offline=offline), notify)), "fault": None}


def _outcome(one: dict[str, Any]) -> list[str]:
    parity = one["parity"].get("minimum_cosine")
    return [
        _within(one["name"], _NAME),
        one["kind"],
        str(one["files"]),
        f"{one['width']:,}",
        " ".join(part for part in (one["runtime"], one["precision"]) if part) or "-",
        "-" if parity is None else f"{parity:.4f}",
        f"{one['seconds']:.1f}",
    ]


def _note_licence(name: str, licence: str | None, quiet: bool) -> None:
    from graftwork import catalogue

    said = catalogue.licence_note(name, licence)
    if said is not None:
        console.note(f"note: {said}", quiet=quiet)


def _refuse_strays(action: str, name: str | None, filters: dict[str, Any], named: str | None) -> None:
    """An option that the action does not know is a slip, not a wish to be passed over."""
    given = {f"--{key}" for key, value in filters.items() if value is not None}
    known = {
        "list": {"--kind", "--licence", "--size", "--language", "--local"},
        "check": {"--kind", "--licence", "--size", "--language", "--local"} if name is None else set(),
        "add": {"--licence"},
    }
    strays = given - known.get(action, set()) | (
        {"--name"} if named is not None and action != "add" else set()
    )
    if strays:
        raise RequestError(
            f"graft sources {action}{' NAME' if name and action == 'check' else ''} takes no "
            f"{', '.join(sorted(strays))}; see graft sources --help"
        )
    if action == "list" and name is not None:
        raise RequestError(f"graft sources list takes no name; try: graft sources show {name}")


def _kind(name: str | None) -> str | None:
    known = ("image", "text", "audio")
    if name is not None and name not in known:
        raise UnknownName("kind", name, known)
    return name


def _answer(found: dict[str, Any], said: str, json: bool) -> None:
    if json:
        console.emit(found)
    else:
        console.say(said)


def _short(number: int | None) -> str:
    """1.8 G, 11.2 M: three figures and a unit."""
    if number is None:
        return "-"
    for exponent, unit in ((9, "G"), (6, "M"), (3, "k")):
        if number >= 10**exponent:
            return f"{number / 10**exponent:.1f} {unit}"
    return str(number)


def _cut(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def _within(name: str, width: int) -> str:
    """A long name without its middle: hub ids differ at the ends."""
    if len(name) <= width:
        return name
    tail = width // 2
    return f"{name[: width - 1 - tail]}…{name[-tail:]}"
