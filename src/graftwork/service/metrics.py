"""What Prometheus is told: requests as they happen, the rest as it is when asked."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, get_args

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from sqlalchemy import func, select

from graftwork.service.database import Database
from graftwork.service.database.tables import Job, JobState

if TYPE_CHECKING:
    from graftwork.serving import Serving

SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
FIGURES: dict[str, tuple[type[GaugeMetricFamily] | type[CounterMetricFamily], str]] = {
    "inputs": (GaugeMetricFamily, "Inputs accepted and not yet answered"),
    "refused": (CounterMetricFamily, "Inputs refused since too many waited"),
    "backbones": (GaugeMetricFamily, "Networks in memory"),
    "backbone_bytes": (GaugeMetricFamily, "What the weights of the networks in memory take"),
    "rows": (GaugeMetricFamily, "Rows through the networks in memory, since each was loaded"),
    "batches": (GaugeMetricFamily, "Batches through the networks in memory, since each was loaded"),
    "mean_batch": (GaugeMetricFamily, "Rows of a batch, on average"),
    "adapters_held": (GaugeMetricFamily, "Low-rank pairs of tuned tasks in memory"),
    "readers": (GaugeMetricFamily, "Processes that decode pictures and recordings"),
    "readers_replaced": (CounterMetricFamily, "Of those, how many died or were ended"),
    "tasks_held": (GaugeMetricFamily, "Tasks whose heads are in memory"),
    "task_bytes": (GaugeMetricFamily, "What the heads in memory take"),
    "tasks_opened": (
        CounterMetricFamily,
        "Tasks read and checked; grows on where --head-memory is too small",
    ),
}
"""What serving counts, by its names."""


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
        ProcessCollector(registry=self._registry)
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
            family, words = FIGURES[name]
            yield family(f"graftwork_{name}", words, value=value)
        labels = ["source", "fingerprint"]
        held = GaugeMetricFamily("graftwork_backbone_held_bytes", "What each network takes", labels=labels)
        rows = CounterMetricFamily("graftwork_backbone_rows", "Rows through each network", labels=labels)
        for one in self._serving.backbones():
            named = [one.source or "", one.fingerprint[:16]]
            held.add_metric(named, one.bytes)
            rows.add_metric(named, one.rows)
        yield from (held, rows)
        jobs = GaugeMetricFamily("graftwork_jobs", "Jobs by state", labels=["state"])
        with self._database.read() as session:
            found = session.execute(select(Job.state, func.count()).group_by(Job.state))
            counted = {state: count for state, count in found}
        for state in get_args(JobState):
            jobs.add_metric([state], counted.get(state, 0))  # 0 too: nobody can watch what is not there
        yield jobs
