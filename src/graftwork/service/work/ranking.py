"""The job that says which source to start from."""

from graftwork import choosing, wire
from graftwork.service.database.tables import Job
from graftwork.service.jobs.desk import Desk
from graftwork.service.work import data
from graftwork.service.work.fitting import rows_of
from graftwork.service.work.said import Said
from graftwork.service.work.sources import require_allowed
from graftwork.service.work.telling import remarking, watched


def work(job: Job, desk: Desk) -> None:
    """request: {dataset, sources?, budget?, metric?, seed?}. The result is as of `graft rank --json`."""
    asked = job.request
    with desk.database.read() as session:
        dataset = data.row(session, job.dataset_id)
    loaded = rows_of(job, desk, dataset)
    names = asked.get("sources") or None
    if names is not None:
        require_allowed(names, loaded.kind, offline=desk.settings.offline)
    said = Said(desk.settings, dataset)
    with remarking(desk, said):
        found = choosing.rank(
            loaded,
            sources=names,
            budget=asked.get("budget"),
            metric=asked.get("metric"),
            seed=asked.get("seed", 0),
            offline=desk.settings.offline,
            notify=watched(desk),
        )
    desk.finish(said.json(wire.ranking(found)))
