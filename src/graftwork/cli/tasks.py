"""The main job: inspect, fit, evaluate, predict, report, pretrain, and the demos."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from graftwork import console, registry
from graftwork.cli.app import (
    Artefact,
    Data,
    File,
    Group,
    Json,
    Label,
    Offline,
    Pooling,
    Quiet,
    Resize,
    Seed,
    Split,
    Text,
    app,
    columns,
    guarded,
)
from graftwork.errors import GraftworkError, RequestError, WorkError


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
        dataset = datasets.load(data, **columns(text, file, label, group, split))
        found = inspection.inspect(dataset, remember, notify)
    if json:
        console.emit(found.to_json())
    else:
        console.say(inspection.in_words(found))


@app.command()
@guarded
def fit(
    data: Data,
    out: Annotated[Path, typer.Option("-o", "--out", help="Where the artefact goes: NAME.graft.")],
    source: Annotated[str, typer.Option(help="auto, a packaged name, a folder or a hub id.")] = "auto",
    strategy: Annotated[
        str, typer.Option(help=f"What learns, and how: {', '.join(registry.names('strategies'))}.")
    ] = "probe",
    setting: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="NAME=VALUE", help="A setting of the strategy; repeat it."),
    ] = None,
    metric: Annotated[str | None, typer.Option(help="accuracy, balanced_accuracy or macro_f1.")] = None,
    baselines: Annotated[str, typer.Option(help="Judge by: all, classical, none.")] = "all",
    budget: Annotated[
        str | None,
        typer.Option(
            help="Time, such as 5m: for the whole fit (auto), for training, or for ranking sources."
        ),
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="Go on with an interrupted run.")] = False,
    pooling: Pooling = None,
    resize: Resize = None,
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
    from graftwork import artefact, running, transfer, wire
    from graftwork.strategies.setting import pairs

    artefact.require_free(out)
    settings, run = pairs(setting or []), running.beside(out)
    first: list[Path] = []

    def keep(outcome: transfer.Outcome) -> None:
        first.append(outcome.save(out, examples=examples, bundle=bundle))

    try:
        with console.progress(quiet or json) as notify:
            outcome = transfer.fit(
                data,
                source=source,
                strategy=strategy,
                settings=settings,
                metric=metric,
                baselines=baselines,
                budget=budget,
                seed=seed,
                pooling=pooling,
                resize=resize,
                offline=offline,
                run=run,
                resume=resume,
                interim=keep,
                notify=notify,
                **columns(text, file, label, group, split),
            )
            saved = outcome.save(out, examples=examples, bundle=bundle)
    except GraftworkError as error:
        if first:
            error.args = (f"{error} ({out} holds the probe's answer)",)
        raise
    except KeyboardInterrupt as error:
        if not run.exists():
            raise
        there = f"{out} holds the probe's model; " if first else ""
        raise WorkError(
            f"interrupted; {there}to go on where it was, give the same command and --resume"
        ) from error
    if json:
        console.emit(
            {"artefact": str(saved), **wire.result(outcome.result), "bytes": dict(artefact.sizes(saved))}
        )
    else:
        from graftwork.words import outcome_in_words, sizes_in_words

        console.say(outcome_in_words(outcome.result))
        console.say(f"\nsaved   {saved} ({sizes_in_words(artefact.sizes(saved))})")
        console.say(f"report  {saved / 'report.html'}")


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
        found = transfer.evaluate(model, data, notify=notify, **columns(text, file, label, group, split))
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
    """Answer for new rows: CSV (input,label,probability,unknown), or JSON lines with --json.

    What a spreadsheet would take for a formula begins with an apostrophe in the CSV, not in the JSON.
    """
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
                said = (line.get("label", ""), probability, unknown, line.get("error", ""))
                writer.writerow([wire.cell(str(one)) for one in (name, *said)])
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
    from graftwork.starting import ready

    with console.progress(quiet or json) as notify:
        dataset, _ = ready(data, seed=seed, notify=notify, **columns(None, file, label, group, split))
        source = train(dataset, out, seed=seed, seconds=seconds, notify=notify)
    if json:
        console.emit({"source": str(out), "kind": source.kind, "weights_sha256": source.weights_sha256})
    else:
        console.say(f"source  {out}\ntry     graft fit DATA -o NAME.graft --source {out}")


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
