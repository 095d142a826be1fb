"""`graft rank`: which source to start from."""

from pathlib import Path
from typing import Annotated

import typer

from graftwork import console
from graftwork.cli.app import (
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
from graftwork.errors import RequestError


@app.command()
@guarded
def rank(
    data: Data,
    source: Annotated[
        list[str] | None, typer.Option(help="A source to look at; repeat it. Default: all at hand.")
    ] = None,
    budget: Annotated[str | None, typer.Option(help="Time to spend, such as 30s, 1m or 2h.")] = None,
    metric: Annotated[str | None, typer.Option(help="accuracy, balanced_accuracy or macro_f1.")] = None,
    baseline: Annotated[bool, typer.Option(help="Compare with a model without transfer.")] = True,
    pooling: Pooling = None,
    resize: Resize = None,
    seed: Seed = 0,
    out: Annotated[Path | None, typer.Option("-o", "--out", help="Write a page: ranking.html.")] = None,
    text: Text = None,
    file: File = None,
    label: Label = None,
    group: Group = None,
    split: Split = None,
    json: Json = False,
    quiet: Quiet = False,
    offline: Offline = False,
) -> None:
    """Rank sources by how well they transfer to labelled data, and say how sure that is."""
    from graftwork import choosing, wire

    if out is not None and not out.absolute().parent.is_dir():
        raise RequestError(f"{out} would lie in {out.absolute().parent}, which is no folder; make it first")
    with console.progress(quiet or json) as notify:
        found = choosing.rank(
            data,
            sources=source or None,
            budget=budget,
            metric=metric,
            baseline=baseline,
            seed=seed,
            pooling=pooling,
            resize=resize,
            offline=offline,
            notify=notify,
            **columns(text, file, label, group, split),
        )
    if out is not None:
        from graftwork.report import render_ranking

        out.write_text(render_ranking(found, Path(data).name), encoding="utf-8")
    if json:
        console.emit({**wire.ranking(found), **({"page": str(out)} if out else {})})
    else:
        from graftwork.words import ranking_in_words

        console.say(ranking_in_words(found))
        if out is not None:
            console.say(f"\npage    {out}")
