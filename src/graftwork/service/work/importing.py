"""The job that takes in an artefact fitted elsewhere."""

from graftwork.service.database.tables import File, Job, Owner
from graftwork.service.intake.artefacts import take
from graftwork.service.jobs.desk import Desk
from graftwork.service.problems import not_found
from graftwork.service.usage import quotas_of, used
from graftwork.service.work.fitting import MADE, is_made, keep


def work(job: Job, desk: Desk) -> None:
    """request: {file, name}. The result is what the manifest says of its fit, with the model's id."""
    settings = desk.settings
    with desk.database.read() as session:
        file = session.get(File, job.request["file"])
        if file is None or file.owner_id != job.owner_id:
            raise not_found("file", str(job.request["file"]))
        owner = session.get(Owner, job.owner_id)
        quotas = settings.quotas if owner is None else quotas_of(owner, settings.quotas)
        free = None if quotas.bytes is None else quotas.bytes - used(session, job.owner_id)["bytes"]
    made = settings.run(job.id) / MADE
    if not is_made(job, desk):
        archive = settings.uploads(job.owner_id) / file.sha256
        take(archive, settings.run(job.id) / "brought", settings.limits, free).rename(made)
    keep(job, desk, made, str(job.request.get("name") or file.name.removesuffix(".zip")), None)
