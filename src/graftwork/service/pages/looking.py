"""What each page shows: the API's own JSON, arranged for the templates."""

from collections.abc import Iterable
from datetime import datetime
from typing import Any

from sqlalchemy import select

from graftwork import registry
from graftwork.datasets.columns import likely
from graftwork.report.words import duration, size, visible
from graftwork.service.callers import Caller
from graftwork.service.context import Service
from graftwork.service.database import tables
from graftwork.service.pages import telling
from graftwork.service.pages.wording import Words
from graftwork.service.problems import Problem
from graftwork.service.routes import datasets as dataset_routes
from graftwork.service.routes import jobs as job_routes
from graftwork.service.routes import keys as key_routes
from graftwork.service.routes import models as model_routes
from graftwork.service.routes import owners as owner_routes
from graftwork.service.routes import usage as usage_routes
from graftwork.sources.listing import listing

Shown = dict[str, Any]
_SHORT = 6
_PAGE = 48
_GUESSED = frozenset({"invalid-data", "columns-unclear", "labels-unfit", "one-class"})
_LISTED = 200
_PLACEHOLDER = "YOUR_KEY"


def home(here: Service, caller: Caller) -> Shown:
    jobs = job_routes.listed(here, caller, None, 20)["items"]
    datasets = dataset_routes.listed(here, caller, None, _SHORT + 1)["items"]
    models = model_routes.listed(here, caller, None, _SHORT + 1)["items"]
    return {
        "at_work": _jobs(here, caller, [one for one in jobs if not one["is_terminal"]]),
        "datasets": datasets[:_SHORT],
        "more_datasets": len(datasets) > _SHORT,
        "models": [_card(one) for one in models[:_SHORT]],
        "more_models": len(models) > _SHORT,
    }


def datasets(here: Service, caller: Caller, cursor: str | None) -> Shown:
    found = dataset_routes.listed(here, caller, cursor, _PAGE)
    return {"items": found["items"], "next": found["next_cursor"]}


def models(here: Service, caller: Caller, cursor: str | None) -> Shown:
    found = model_routes.listed(here, caller, cursor, _PAGE)
    return {"items": [_card(one) for one in found["items"]], "next": found["next_cursor"]}


def jobs(here: Service, caller: Caller, cursor: str | None) -> Shown:
    found = job_routes.listed(here, caller, cursor, _PAGE)
    return {"items": _jobs(here, caller, found["items"]), "next": found["next_cursor"]}


def dataset(t: Words, here: Service, caller: Caller, dataset_id: str, source: str) -> Shown:
    """source: what the form proposes to build on."""
    data = dataset_routes.one(here, caller, dataset_id)
    found = data["inspection"] or {}
    problem = data["problem"] or {}
    return {
        "data": data,
        "found": found,
        "warnings": telling.warnings(t, found),
        **telling.balance(found),
        "can_choose": caller.may("write") and problem.get("code") in _GUESSED and _is_table(here, data),
        "columns": problem.get("columns") or [],
        "likely": likely(problem.get("columns") or []),
        "source": source,
        "sources": _sources(data["kind"]) if data["state"] == "ready" else [],
        "strategies": _strategies(t),
        "jobs": _jobs(here, caller, _of_dataset(here, caller, data["id"])),
        "models": [_card(one.shape()) for one in here.models.of(caller) if one.dataset == data["id"]],
    }


def job(t: Words, here: Service, caller: Caller, job_id: str) -> Shown:
    found = job_routes.one(here, caller, job_id)
    [known] = _jobs(here, caller, [found])
    return {
        "job": {**found, "dataset": known["dataset"], "model": _alive(here, caller, found["model"])},
        "about": known["about"],
        "took": known["seconds"],
        "ranking": None,
        **_said(t, found),
    }


def model(t: Words, here: Service, caller: Caller, model_id: str, address: str) -> Shown:
    found = model_routes.in_full(here, caller, model_id)
    known = here.models.find(caller, model_id)
    told = _told(t, found["result"])
    dataset_id, corrections = found["dataset"], 0
    warnings = telling.warnings(t, told["result"].dataset.model_dump()) if told["result"] else []
    if dataset_id is not None:
        try:
            data = dataset_routes.one(here, caller, dataset_id)
            corrections, warnings = data["corrections"], telling.warnings(t, data["inspection"] or {})
        except Problem:  # the data it learnt from has been deleted since
            dataset_id = None
    return {
        **told,
        "warnings": warnings,
        "model": {**found, "bytes": found["summary"].get("bytes")},
        "own": found["place"] == "service",
        "dataset": dataset_id,
        "corrections": corrections,
        "refit": _refit(here, caller, found),
        "has_report": (known.folder / "report.html").is_file(),
        "code": _code(address, found, str(t("code.sentence"))),
    }


def settings(here: Service, caller: Caller) -> Shown:
    said = usage_routes.get_usage(here, caller, None, 30)
    days = said["days"]
    summed = {name: sum(day[name] for day in days) for name in ("requests", "predictions", "jobs")}
    totals = [(name, f"{amount:,}") for name, amount in summed.items()]
    totals.append(("uploaded_bytes", size(sum(day["uploaded_bytes"] for day in days))))
    totals.append(("job_seconds", duration(sum(day["job_seconds"] for day in days))))
    bounds, used = said["quotas"], said["used"]
    owners = owner_routes.list_owners(here, caller, None, _LISTED) if caller.may("admin") else {}
    return {
        "owners": owners.get("items", []),
        "more_owners": owners.get("next_cursor") is not None,
        "keys": key_routes.list_keys(here, caller, None, None, _LISTED)["items"]
        if caller.may("write")
        else [],
        "meters": [{"name": name, "used": amount, "most": bounds.get(name)} for name, amount in used.items()],
        "totals": totals,
    }


def _said(t: Words, job: Shown) -> Shown:
    """What a job found, in words: of a fit or an import as `_told`, of a ranking its order."""
    ranking = telling.Ranked.read(job["result"]) if job["kind"] == "rank" else None
    if ranking is None:
        return _told(t, job["result"] if job["kind"] in ("fit", "import") else None)
    return {
        "result": None,
        "ranking": ranking,
        "told": telling.ranking(t, ranking),
        "axis": _axis(ranking.scores),
    }


def _told(t: Words, result: object) -> Shown:
    """What a fit says, its verdict in words, and its scores' axis; result None where it is no fit's."""
    told = telling.read(result)
    if told is None:
        return {"result": None}
    errors = telling.Errors.read(result)
    return {
        "result": told,
        "told": telling.sentence(t, told.verdict),
        "errors": errors,
        "advice": telling.advice(t, told, errors),
        "axis": _axis(one["score"] for one in told.compared),
    }


def _axis(scores: Iterable[Any]) -> tuple[float, float]:
    return telling.axis((one.value, one.low, one.high) for one in scores)


def _card(one: Shown) -> Shown:
    """A model as its card shows it. headline: its score by the metric that was declared."""
    summary = telling.Summary.read(one["summary"])
    return {**one, "headline": summary.headline, "outcome": summary.outcome}


def _jobs(here: Service, caller: Caller, found: Iterable[Shown]) -> list[Shown]:
    """Jobs as lines. dataset: None where it was deleted. about: the name of the model or of the data.

    seconds: None until it has ended.
    """
    listed = list(found)
    wanted = {one["dataset"] for one in listed if one["dataset"]}
    with here.database.read() as session:
        data = select(tables.Dataset.id, tables.Dataset.name).where(
            tables.Dataset.owner_id == caller.owner_id, tables.Dataset.id.in_(wanted)
        )
        names = {id: name for id, name in session.execute(data)}
    return [
        {
            **one,
            "dataset": one["dataset"] if one["dataset"] in names else None,
            "about": one["request"].get("name") or names.get(one["dataset"]),
            "seconds": _seconds(one["started"], one["finished"]),
        }
        for one in listed
    ]


def _alive(here: Service, caller: Caller, model_id: str | None) -> str | None:
    """The model, unless it was deleted since."""
    return model_id if model_id and here.models.get(caller, model_id) else None


def _refit(here: Service, caller: Caller, model: Shown) -> Shown:
    """The request that gave the model, to be made again; a plain one where that is not known any more."""
    plain = {"kind": "fit", "dataset": model["dataset"], "name": model["name"]}
    if model["job"] is None:
        return plain
    try:
        asked = job_routes.one(here, caller, model["job"])
    except Problem:
        return plain
    return {**asked["request"], **plain} if asked["kind"] == "fit" else plain


def _of_dataset(here: Service, caller: Caller, dataset_id: str) -> list[Shown]:
    """The newest fits and rankings on one dataset."""
    found = job_routes.listed(here, caller, None, 12, dataset=dataset_id)["items"]
    return [one for one in found if one["kind"] != "inspect"]


def _seconds(started: str | None, finished: str | None) -> float | None:
    if started is None or finished is None:
        return None
    return (datetime.fromisoformat(finished) - datetime.fromisoformat(started)).total_seconds()


def _is_table(here: Service, data: Shown) -> bool:
    """Whether other columns could help: it came as files without labels, and the first is no archive."""
    first = data["files"][0] if data["files"] else None
    if first is None or first.get("label") is not None:
        return False
    with here.database.read() as session:
        file = session.get(tables.File, first["file"])
        return file is not None and not file.name.lower().endswith(".zip")


def _sources(kind: Any) -> list[str]:
    """Pretrained models at hand for this kind of rows."""
    return [one.name for one in listing(kind, local=True) if one.fault is None]


def _strategies(t: Words) -> list[str]:
    return [name for name in registry.names("strategies") if t.has(f"strategy.{name}")]


def _code(address: str, model: Shown, sentence: str) -> list[tuple[str, str]]:
    """How to ask the model from outside: (language, lines). By id where its name has hidden characters."""
    name = model["name"] if visible(model["name"]) == model["name"] else model["id"]
    kind = model["kind"]
    asked = {"image": "photo.jpg", "audio": "sound.wav", "text": sentence}[kind]
    quoted, said = (one.replace("'", "'\\''") for one in (name, asked))
    data = f"--form-string input='{said}'" if kind == "text" else f"-F input=@{said}"
    literal = name.replace("\\", "\\\\").replace('"', '\\"')
    curl = (
        f"curl {address}/v1/predict \\\n  -H 'Authorization: Bearer {_PLACEHOLDER}' \\\n"
        f"  --form-string model='{quoted}' \\\n  {data}"
    )
    python = (
        f'import graftwork\n\nclient = graftwork.Client("{address}", key="{_PLACEHOLDER}")\n'
        f'print(client.predict("{literal}", ["{asked}"]))'
    )
    return [("curl", curl), ("Python", python)]
