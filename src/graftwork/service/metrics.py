"""What Prometheus is told: requests as they happen, the rest as it is when asked."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from sqlalchemy import func, select

from graftwork.service.database import Database
from graftwork.service.database.tables import Job

if TYPE_CHECKING:
    from graftwork.serving import Serving

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)


class Metrics:
    """A registry of its own: two services in one process do not mix."""

    def __init__(self, database: Database, serving: "Serving") -> None:
        self._registry = CollectorRegistry()
        self._requests = Histogram(
            "graftwork_request_seconds",
            "Requests by route and status, and how long they took",
            ["method", "route", "status"],
            registry=self._registry,
            buckets=SECONDS,
        )
        self._known: dict[tuple[str, str, int], Histogram] = {}
        self._predictions = Counter(
            "graftwork_predictions", "Inputs answered, once for each model", registry=self._registry
        )
        self._registry.register(_Now(database, serving))

    def request(self, method: str, route: str, status: int, seconds: float) -> None:
        known = self._known.get((method, route, status))
        if known is None:
            known = self._known[method, route, status] = self._requests.labels(method, route, status)
        known.observe(seconds)

    def predictions(self, more: int) -> None:
        self._predictions.inc(more)

    def text(self) -> bytes:
        """Prometheus's text format; asks the database, so not for the event loop."""
        return generate_latest(self._registry)


class _Now:
    """What is so when asked: what serving holds, and how many jobs are in which state."""

    def __init__(self, database: Database, serving: "Serving") -> None:
        self._database, self._serving = database, serving

    def describe(self) -> list[Metric]:
        return []  # else the registry would collect, and ask the database, when it is made

    def collect(self) -> Iterator[Metric]:
        for name, value in self._serving.figures().items():
            yield GaugeMetricFamily(f"graftwork_{name.replace(' ', '_')}", f"Serving: {name}", value=value)
        held = GaugeMetricFamily(
            "graftwork_backbone_held_bytes", "Each backbone held", labels=["fingerprint"]
        )
        for one in self._serving.backbones():
            held.add_metric([one.fingerprint[:16]], one.bytes)
        yield held
        jobs = GaugeMetricFamily("graftwork_jobs", "Jobs by state", labels=["state"])
        with self._database.read() as session:
            for state, count in session.execute(select(Job.state, func.count()).group_by(Job.state)):
                jobs.add_metric([state], count)
        yield jobs
