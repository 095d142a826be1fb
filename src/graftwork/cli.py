"""The command line: parse, call, print. `graft COMMAND --help` documents each command."""

import errno
import functools
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import typer

from graftwork import console
from graftwork.errors import GraftworkError, RequestError

app = typer.Typer(
    name="graft",
    help="Reuse a pretrained model for a new task, and say honestly whether the transfer helped.",
    add_completion=False,
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
cache = typer.Typer(help="The feature store.", no_args_is_help=True, rich_markup_mode=None)
app.add_typer(cache, name="cache")

Json = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress and no remarks.")]
Offline = Annotated[bool, typer.Option("--offline", help="Never open a connection.")]
Data = Annotated[str, typer.Argument(help="A folder of class folders, a table, or such by split.")]
Artefact = Annotated[Path, typer.Argument(help="A folder NAME.graft.")]
Text = Annotated[str | None, typer.Option("--text", help="The table's column of texts.")]
File = Annotated[str | None, typer.Option("--file", help="The table's column of file paths.")]
Label = Annotated[str | None, typer.Option("--label", help="The table's column of labels.")]
Group = Annotated[str | None, typer.Option("--group", help="The column whose equal values stay together.")]
Split = Annotated[str | None, typer.Option("--split", help="The column naming train, validation or test.")]
Seed = Annotated[int, typer.Option("--seed", help="Everything random follows from it.")]


def main() -> None:
    """The entry point of `graft`."""
    if "--offline" in sys.argv:
        # read by the hub's client when it is first imported, so set before anything is
        os.environ["HF_HUB_OFFLINE"] = "1"
    warnings.showwarning = _show_warning
    app()


def _show_warning(message: Warning | str, category: type[Warning], *_: Any, **__: Any) -> None:
    """Our own warnings as one line, each once; a library's are for its developers."""
    if category.__module__.startswith("graftwork") and str(message) not in _warned:
        _warned.add(str(message))
        console.note(f"graft: {message}", quiet="--quiet" in sys.argv)


_warned: set[str] = set()


def guarded(command: Callable[..., None]) -> Callable[..., None]:
    """Errors as one line and an exit status: 1 the work failed, 2 the request was wrong."""

    @functools.wraps(command)
    def run(*args: Any, **kwargs: Any) -> None:
        try:
            command(*args, **kwargs)
        except GraftworkError as error:
            _fail(str(error), error.exit_status, kwargs)
        except KeyboardInterrupt:
            _fail("interrupted; features computed so far are kept, run again to go on", 1, kwargs)
        except MemoryError:
            _fail("out of memory; close other programs or use a smaller source", 1, kwargs)
        except BrokenPipeError:
            # the reader of our output has gone (`graft predict ... | head`): nothing is wrong
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        except Exception as error:
            if os.environ.get("GRAFT_TRACEBACK"):
                raise
            _fail(_fault(error), 1, kwargs)

    return run


def _fault(error: Exception) -> str:
    """What is said of an error that no module foresaw: the disk's own, or a slip of ours."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES):
        return f"{error.filename or 'the disk'}: {error.strerror}; free space or set GRAFT_HOME"
    where = traceback.extract_tb(error.__traceback__)[-1]
    # a library's message may run over many lines
    said = " ".join(f"{type(error).__name__}: {error}".split())
    place = f"{Path(where.filename).name}:{where.lineno}"
    return f"a fault in Graftwork, not in your request: {said} ({place}); GRAFT_TRACEBACK=1 shows all"


@app.command()
@guarded
def inspect(
    data: Data,
    text: Text = None,
    file: File = None,
    label: Label = None,
    group: Group = None,
    split: Split = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Print what was inferred: kind, rows, classes, balance, duplicates, leaks, unreadable rows."""
    from graftwork import datasets, inspection
    from graftwork.store import remember

    with console.progress(quiet or json) as notify:
        dataset = datasets.load(data, **_columns(text, file, label, group, split))
        found = inspection.inspect(dataset, remember, notify)
    if json:
        console.emit(found.to_json())
    else:
        console.say(inspection.in_words(found))


@app.command()
@guarded
def sources(
    action: Annotated[str, typer.Argument(help="list or show")] = "list",
    name: Annotated[str | None, typer.Argument(help="The source to show.")] = None,
    json: Json = False,
    quiet: Quiet = False,
    offline: Offline = False,
) -> None:
    """List the pretrained models at hand, or show one: kind, licence, files and their SHA-256."""
    from graftwork import sources as catalogue

    if action not in ("list", "show"):
        raise RequestError(f"sources has no action {action!r}; expected list or show")
    if action == "show" and name is None:
        raise RequestError("which source? Expected a name, as in: graft sources show minilm")
    found = catalogue.available() if name is None else [catalogue.find(name, offline=offline)]
    described = [
        {
            "name": one.name,
            "kind": one.kind,
            "origin": one.origin,
            "revision": one.revision,
            "licence": one.licence,
            "weights_sha256": one.weights_sha256,
            "folder": str(one.folder),
            "files": dict(one.files),
        }
        for one in found
    ]
    if json:
        console.emit({"sources": described})
    elif action == "show":
        console.say(console.described(described[0]))
    elif not described:
        console.say("no source at hand; try: pip install 'graftwork[offline]', or set GRAFT_SOURCES")
    else:
        columns = ("name", "kind", "origin", "licence", "folder")
        console.say(console.table(columns, [[str(one[c] or "-") for c in columns] for one in described]))


@app.command()
@guarded
def fit(
    data: Data,
    out: Annotated[Path, typer.Option("-o", "--out", help="Where the artefact goes: NAME.graft.")],
    source: Annotated[str, typer.Option(help="auto, a packaged name, a folder or a hub id.")] = "auto",
    strategy: Annotated[str, typer.Option(help="probe, mlp, classical or scratch.")] = "probe",
    metric: Annotated[str | None, typer.Option(help="accuracy, balanced_accuracy or macro_f1.")] = None,
    baselines: Annotated[str, typer.Option(help="Judge by: all, classical, none.")] = "all",
    pooling: Annotated[str | None, typer.Option(help="pooled, cls, mean or flatten.")] = None,
    resize: Annotated[str | None, typer.Option(help="crop, or fit to keep the whole picture.")] = None,
    seed: Seed = 0,
    examples: Annotated[bool, typer.Option(help="Keep a few rows in the artefact and its report.")] = True,
    bundle: Annotated[bool, typer.Option(help="Copy the source into the artefact.")] = False,
    text: Text = None,
    file: File = None,
    label: Label = None,
    group: Group = None,
    split: Split = None,
    json: Json = False,
    quiet: Quiet = False,
    offline: Offline = False,
) -> None:
    """Learn a task from labelled data, judge whether transfer helped, and save the model."""
    from graftwork import artefact, transfer, wire

    artefact.require_free(out)
    with console.progress(quiet or json) as notify:
        outcome = transfer.fit(
            data,
            source=source,
            strategy=strategy,
            metric=metric,
            baselines=baselines,
            seed=seed,
            pooling=pooling,
            resize=resize,
            offline=offline,
            notify=notify,
            **_columns(text, file, label, group, split),
        )
        saved = outcome.save(out, examples=examples, bundle=bundle)
    if json:
        console.emit({"artefact": str(saved), **wire.result(outcome.result)})
    else:
        from graftwork.words import outcome_in_words

        console.say(outcome_in_words(outcome.result))
        console.say(f"\nsaved   {saved}\nreport  {saved / 'report.html'}")


@app.command()
@guarded
def evaluate(
    artefact: Artefact,
    data: Data,
    text: Text = None,
    file: File = None,
    label: Label = None,
    group: Group = None,
    split: Split = None,
    json: Json = False,
    quiet: Quiet = False,
    offline: Offline = False,
) -> None:
    """Score a saved model on labelled rows: intervals, per class, calibration."""
    from graftwork import artefact as artefacts
    from graftwork import transfer, wire
    from graftwork.words import scores_in_words

    with console.progress(quiet or json) as notify:
        model, _ = artefacts.load(artefact, offline=offline)
        found = transfer.evaluate(model, data, notify=notify, **_columns(text, file, label, group, split))
    if json:
        console.emit({"scores": wire.assessment(found), "classes": wire.per_class(found)})
    else:
        console.say(scores_in_words(found))


@app.command()
@guarded
def predict(
    artefact: Artefact,
    inputs: Annotated[list[str] | None, typer.Argument(help="Files, folders, a table, texts, -.")] = None,
    text: Text = None,
    file: File = None,
    json: Annotated[bool, typer.Option("--json", help="JSON lines instead of CSV.")] = False,
    quiet: Quiet = False,
    offline: Offline = False,
) -> None:
    """Answer for new rows: CSV (input,label,probability,unknown), or JSON lines with --json."""
    import csv

    from graftwork import artefact as artefacts
    from graftwork import wire
    from graftwork.inputs import rows_of

    model, _ = artefacts.load(artefact, offline=offline)
    # every input is looked for before the first is answered: a slip in the last leaves no half answer
    asked = [rows_of(one, model.backbone.kind, text=text, file=file) for one in inputs or ["-"]]
    writer = csv.writer(sys.stdout)
    if not json:
        writer.writerow(("input", "label", "probability", "unknown", "error"))
    failed = 0
    for rows in asked:
        with console.progress(quiet or json) as notify:
            answers = model.answer(rows, notify)
        failed += len(answers.unreadable)
        for i, name in enumerate(rows.names):
            line = wire.answer(name, answers, i)
            if json:
                console.emit(line)
            else:
                probability = f"{line['probability']:.4f}" if "label" in line else ""
                unknown = line.get("unknown", "")
                writer.writerow((name, line.get("label", ""), probability, unknown, line.get("error", "")))
    if failed:
        raise RequestError(
            f"{failed} of the inputs could not be read (see their error); the others were answered"
        )


@app.command()
@guarded
def report(
    artefact: Artefact,
    open_: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Print the path of an artefact's HTML report."""
    from graftwork import artefact as artefacts

    artefacts.inspect(artefact)
    path = (artefact / "report.html").resolve()
    if json:
        console.emit({"report": str(path), "manifest_sha256": artefacts.digest(artefact)})
    else:
        console.say(str(path))
    if open_:
        import webbrowser

        webbrowser.open(path.as_uri())


@app.command()
@guarded
def pretrain(
    data: Data,
    out: Annotated[Path, typer.Option("-o", "--out", help="Folder of the new source.")],
    seconds: Annotated[float | None, typer.Option(help="Stop training after this long.")] = None,
    seed: Seed = 0,
    file: File = None,
    label: Label = None,
    group: Group = None,
    split: Split = None,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Train a compact network on labelled pictures and write it as a source for other tasks."""
    from graftwork.pretraining import pretrain as train
    from graftwork.transfer import ready

    with console.progress(quiet or json) as notify:
        dataset, _ = ready(data, seed=seed, notify=notify, **_columns(None, file, label, group, split))
        source = train(dataset, out, seed=seed, seconds=seconds, notify=notify)
    if json:
        console.emit({"source": str(out), "kind": source.kind, "weights_sha256": source.weights_sha256})
    else:
        console.say(f"source  {out}\ntry     graft fit DATA -o NAME.graft --source {out}")


@cache.command("info")
@guarded
def cache_info(json: Json = False, quiet: Quiet = False) -> None:
    """Show what the feature store holds."""
    from graftwork import store

    _show(store.info(store.folder()), json)


@cache.command("prune")
@guarded
def cache_prune(
    limit: Annotated[str, typer.Option(help="Keep at most this much, such as 500MB or 2GB.")] = "0",
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Drop the features used longest ago until the store fits the limit."""
    from graftwork import store

    _show(store.prune(store.folder(), _bytes(limit)), json)


@cache.command("verify")
@guarded
def cache_verify(json: Json = False, quiet: Quiet = False) -> None:
    """Check every stored feature against its checksum and drop what is damaged."""
    from graftwork import store

    _show(store.verify(store.folder()), json)


@app.command()
@guarded
def doctor(json: Json = False, quiet: Quiet = False, offline: Offline = False) -> None:
    """Show what this machine can do: processor features, engine, precision, hub, store."""
    from graftwork.doctor import examine

    _show(examine(offline=offline), json)


@app.command()
@guarded
def demo(
    which: Annotated[str, typer.Argument(help="digits or text")] = "digits",
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Where the artefact goes.")] = None,
    seed: Seed = 0,
    json: Json = False,
    quiet: Quiet = False,
) -> None:
    """Run the whole thing on data that come with the installation."""
    from graftwork.demo import run

    with console.progress(quiet or json) as notify:
        outcome = run(
            which, out, seed=seed, notify=notify, say=lambda line: None if json else console.say(line)
        )
    if json:
        console.emit(outcome)


def _columns(
    text: str | None, file: str | None, label: str | None, group: str | None, split: str | None
) -> dict[str, Any]:
    return {"text": text, "file": file, "label": label, "group": group, "split": split}


def _show(found: Any, json: bool) -> None:
    if json:
        console.emit(found)
    else:
        console.say(console.described(found))


def _bytes(said: str) -> int:
    units = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
    number = said.upper().rstrip("BKMGT ")
    unit = said.upper()[len(number) :].strip()
    try:
        return int(float(number) * units[unit])
    except (ValueError, KeyError) as error:
        raise RequestError(f"{said!r} is no size; expected a number with MB or GB, such as 500MB") from error


def _fail(message: str, status: int, options: dict[str, Any]) -> None:
    if options.get("json"):
        console.emit({"error": {"message": message, "status": status}})
    else:
        print(f"graft: {message}", file=sys.stderr)
    raise typer.Exit(status)
