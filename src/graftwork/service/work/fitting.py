"""The job that makes a model of a dataset. It goes on where an earlier attempt was killed."""

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, ValidationError
from sqlalchemy.orm import Session

from graftwork import artefact, running, transfer
from graftwork.errors import ArtefactError
from graftwork.outcome import Outcome
from graftwork.rows import Dataset
from graftwork.service import ids
from graftwork.service.database import tables
from graftwork.service.database.tables import Job, Model
from graftwork.service.jobs.desk import Desk
from graftwork.service.problems import Problem, bad_request
from graftwork.service.work import data
from graftwork.service.work.said import Said
from graftwork.service.work.sources import require_allowed
from graftwork.service.work.telling import remarking, told, watched

RUN, MADE, PUT = "run", "made.graft", "put"
"""In a job's folder: the run with its checkpoints, the finished artefact, the digest it was put away by."""


_Word = Annotated[str, Field(max_length=100)]


class _Score(BaseModel):
    value: float | None
    low: float | None
    high: float | None


_Scores = Annotated[dict[_Word, _Score], Field(max_length=50)]


class _Verdict(BaseModel):
    outcome: Literal["helped", "hurt", "undecided"]
    difference: float
    low: float
    high: float
    baseline: _Word
    metric: _Word


class _Rows(BaseModel):
    rows: int | None = None


class _Shown(BaseModel):
    """The part of a manifest's result that lists show."""

    scores: Annotated[dict[_Word, _Scores], Field(max_length=10)] = {}
    metric: _Word | None = None
    verdict: _Verdict | None = None
    dataset: _Rows = _Rows()


def work(job: Job, desk: Desk) -> None:
    """request: {dataset, name, source, strategy, budget, metric, baselines, seed, settings}, all but
    the first with a default. The result is as of `graft fit --json`, with the model's id.
    """
    with desk.database.read() as session:
        dataset = data.row(session, job.dataset_id)
    said = Said(desk.settings, dataset)
    made = desk.settings.run(job.id) / MADE
    if not is_made(job, desk):
        with remarking(desk, said):
            outcome = _fitted(job, desk, dataset)
        told(desk, outcome)
        _cleaned(outcome, said).save(made, places=False)
    keep(job, desk, made, str(job.request.get("name") or dataset.name), dataset.id)


def rows_of(job: Job, desk: Desk, dataset: tables.Dataset) -> Dataset:
    """The dataset's rows with what was corrected before the job was asked for."""
    if dataset.state != "ready":
        raise bad_request(f"the dataset {dataset.name} is {dataset.state}; expected one that is ready")
    with desk.database.read() as session:
        corrections = data.corrected(session, dataset, desk.settings, job.created)
    return data.joined(data.load(dataset, desk.settings), corrections)


def keep(job: Job, desk: Desk, made: Path, name: str, dataset_id: str | None) -> None:
    """Put the finished artefact away and end the job; an attempt after a kill goes on from here."""
    note = desk.settings.run(job.id) / PUT
    if not _is_put(desk, job):
        digest = artefact.digest(made)
        note.write_text(digest)
        desk.artefacts.put(made)
    digest = note.read_text()
    folder = desk.artefacts.folder(digest)
    manifest, sizes = artefact.inspect(folder), dict(artefact.sizes(folder))
    model = Model(
        id=ids.new("model"),
        owner_id=job.owner_id,
        name=name[:100],
        digest=digest,
        kind=manifest.kind,
        labels=list(manifest.labels),
        strategy=manifest.strategy[:40],
        source=None if manifest.source is None else manifest.source.name[:200],
        fingerprint=manifest.fingerprint[:64],
        summary=_summary(manifest.result, sizes),
        dataset_id=dataset_id,
        job_id=job.id,
        created=time.time(),
    )

    def also(session: Session) -> None:
        session.add(model)
        session.flush()  # from here on nobody removes the artefact: see erasing.drop_artefact
        if not folder.is_dir():
            raise Problem(
                409, "conflict", "another model of the same content was deleted at this moment; try again"
            )
        row = session.get(Job, job.id)
        assert row is not None
        row.model_id = model.id

    result = Said(desk.settings).json(manifest.result)
    desk.finish({"model": model.id, **result, "bytes": sizes}, also=also)


def _fitted(job: Job, desk: Desk, dataset: tables.Dataset) -> Outcome:
    asked, settings = job.request, desk.settings
    rows = rows_of(job, desk, dataset)
    source = asked.get("source") or "auto"
    if source != "auto":
        require_allowed([source], rows.kind, offline=settings.offline)
    run = settings.run(job.id) / RUN
    options: dict[str, Any] = {
        "source": source,
        "strategy": asked.get("strategy") or "probe",
        "settings": asked.get("settings") or None,
        "metric": asked.get("metric"),
        "baselines": asked.get("baselines") or "all",
        "budget": asked.get("budget"),
        "seed": asked.get("seed") or 0,
        "offline": settings.offline,
        "run": run,
        "interim": lambda outcome: told(desk, outcome),
        "notify": watched(desk),
    }
    try:
        return transfer.fit(rows, resume=(run / running.REQUEST).is_file(), **options)
    except running.OtherRun:  # begun by another version of the service: nothing can be gone on with
        return transfer.fit(rows, resume=False, **options)


def is_made(job: Job, desk: Desk) -> bool:
    """Whether an earlier attempt has finished the artefact."""
    return _is_put(desk, job) or (desk.settings.run(job.id) / MADE / "manifest.json").is_file()


def _is_put(desk: Desk, job: Job) -> bool:
    """Whether an earlier attempt has put its artefact away and was killed before it could say so."""
    note = desk.settings.run(job.id) / PUT
    if not note.is_file():
        return False
    try:
        artefact.inspect(desk.artefacts.folder(note.read_text()))
    except ArtefactError:
        return False
    return True


def _cleaned(outcome: Outcome, said: Said) -> Outcome:
    """What other sources were refused for may name where they lie."""
    ranking = outcome.result.ranking
    if ranking is None:
        return outcome
    refused = {name: said.text(reason) for name, reason in ranking.refused.items()}
    return replace(outcome, result=replace(outcome.result, ranking=replace(ranking, refused=refused)))


def _summary(result: Mapping[str, Any], sizes: Mapping[str, int]) -> dict[str, Any]:
    """What lists of models show; of a brought artefact only what has the form that a fit gives it."""
    try:
        said = _Shown.model_validate(result)
    except ValidationError:
        said = _Shown()
    return {
        "scores": {
            part: {name: one.model_dump() for name, one in by.items()} for part, by in said.scores.items()
        },
        "metric": said.metric,
        "verdict": None if said.verdict is None else said.verdict.model_dump(),
        "bytes": sizes["total"],
        "rows": said.dataset.rows,
    }
