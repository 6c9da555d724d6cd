"""The gateway's metrics, for Prometheus at `/metrics`. Names and meanings are public (docs/reference)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector
from prometheus_client.exposition import CONTENT_TYPE_LATEST, generate_latest
from prometheus_client.metrics_core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from services.gateway.ports import ModuleFigures
from services.gateway.route_metrics import RouteCollector

BUCKETS_S = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 60.0)


class Metrics:
    """One registry per application, so that several may live in one process."""

    def __init__(
        self, behind: Callable[[], int | None], rule_figures: Callable[[], Mapping[str, Mapping[str, Any]]] = dict,
        route_lags: Callable[[], Mapping[str, Mapping[str, Any]]] = dict,
    ) -> None:  # fmt: skip
        """`behind` gives the records that the sink is behind, None if that is not known (then the gauge says NaN).

        `rule_figures` gives, by rule, what happened to its records, `route_lags` how far each route is behind.
        """
        self.registry = CollectorRegistry()
        self.http_seconds = Histogram(
            "mplp_http_request_seconds",
            "Time until a response begins.",
            ("method", "route", "status"),
            buckets=BUCKETS_S,
            registry=self.registry,
        )
        self.events_accepted = Counter("mplp_events_accepted", "Events taken by POST /v1/events.", registry=self.registry)
        self.events_rejected = Counter(
            "mplp_events_rejected", "Events refused by POST /v1/events, by code.", ("code",), registry=self.registry
        )
        self.queries = Counter(
            "mplp_queries", "Queries by how they ended (done, refused, failed, cancelled).", ("outcome",), registry=self.registry
        )
        self.query_rows = Counter("mplp_query_rows", "Rows that queries returned.", registry=self.registry)
        self.streams_open = Gauge("mplp_streams_open", "Live streams that are open now.", registry=self.registry)
        self.stream_records = Counter("mplp_stream_records", "Records sent on live streams.", registry=self.registry)
        self.executions_started = Counter("mplp_executions_started", "Executions started over HTTP.", registry=self.registry)
        self.sink_behind = Gauge("mplp_sink_behind_records", "Records that the history is behind the topics.", registry=self.registry)
        self.sink_behind.set_function(lambda: float("nan") if (records := behind()) is None else records)
        self.registry.register(RuleCollector(rule_figures))
        self.registry.register(RouteCollector(route_lags))
        ProcessCollector(registry=self.registry)

        self._modules: dict[str, Gauge] = {
            figure: Gauge(f"mplp_module_{figure}", text, ("module",), registry=self.registry)
            for figure, text in (
                ("serving", "Whether a process of a users' module lives and takes requests (1 or 0)."),
                ("processes", "Living processes of a users' module."),
                ("running", "Requests that the processes of a users' module work on, as they told with their leases."),
            )
        }

    def render(self, modules: Mapping[str, ModuleFigures] | None = None) -> tuple[bytes, str]:
        """The exposition and its content type. `modules`: how users' modules are."""
        for figure, gauge in self._modules.items():
            gauge.clear()  # a module that is not offered any more is gone from here, too
            for name, figures in (modules or {}).items():
                gauge.labels(name).set(getattr(figures, figure))
        return generate_latest(self.registry), CONTENT_TYPE_LATEST


class RuleCollector(Collector):
    """The rules' figures, as the workers told them last."""

    #: Name → (figure, help).
    _COUNTERS: Mapping[str, tuple[str, str]] = {
        "mplp_rule_composites": ("composites", "Composites that a rule said, each counted once."),
        "mplp_rule_composites_revised": ("revised", "Composites that a rule said again or took back."),
        "mplp_rule_actions_performed": ("performed", "Actions of a rule that were performed."),
        "mplp_rule_actions_given_up": ("given_up", "Actions of a rule that are among the dead letters."),
        "mplp_rule_groups_evicted": ("evicted", "Groups of a rule that were forgotten because there were too many."),
    }
    _OUTCOMES = ("matched", "late", "duplicates", "ahead", "errors", "overflowed")

    def __init__(self, figures: Callable[[], Mapping[str, Mapping[str, Any]]]) -> None:
        self._figures = figures

    def describe(self) -> Iterator[Metric]:
        """What `collect` gives, without figures."""
        yield from self._families({})

    def collect(self) -> Iterator[Metric]:
        """The figures of now."""
        yield from self._families(self._figures())

    def _families(self, by_rule: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
        records = CounterMetricFamily(
            "mplp_rule_records", "Records of a rule by what became of them; late ones and duplicates are matched, too.",
            labels=("rule", "outcome"),
        )  # fmt: skip
        groups = GaugeMetricFamily("mplp_rule_groups", "Groups of a rule that are kept.", labels=("rule",))
        waiting = GaugeMetricFamily("mplp_rule_actions_waiting", "Actions of a rule that are not done yet.", labels=("rule",))
        for rule_id, figures in sorted(by_rule.items()):
            for outcome in self._OUTCOMES:
                records.add_metric((rule_id, outcome), figures[outcome])
            groups.add_metric((rule_id,), figures["groups"])
            waiting.add_metric((rule_id,), figures["waiting"])
        yield records
        yield groups
        yield waiting
        for name, (figure, text) in self._COUNTERS.items():
            family = CounterMetricFamily(name, text, labels=("rule",))
            for rule_id, figures in sorted(by_rule.items()):
                family.add_metric((rule_id,), figures[figure])
            yield family
