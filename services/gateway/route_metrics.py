"""The figures of routes, for Prometheus."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


class RouteCollector(Collector):
    """How far each route is behind, as was looked up last."""

    #: Name → (figure, help).
    _GAUGES: Mapping[str, tuple[str, str]] = {
        "mplp_route_lag_records": ("records", "Records of a route's topics that it has not looked at yet, or that wait."),
        "mplp_route_lag_seconds": ("seconds", "How long ago the oldest record arrived that a route has not settled; 0: there is none."),
        "mplp_route_parked_keys": ("parked", "Keys of a route whose oldest record waits for its next attempt."),
        "mplp_route_destination_down": ("down", "1 while the destination of a route is taken to be down and left alone, else 0."),
    }

    def __init__(self, lags: Callable[[], Mapping[str, Mapping[str, Any]]]) -> None:
        self._lags = lags

    def describe(self) -> Iterator[Metric]:
        """What `collect` gives, without figures."""
        yield from self._families({})

    def collect(self) -> Iterator[Metric]:
        """The figures of now."""
        yield from self._families(self._lags())

    def _families(self, by_route: Mapping[str, Mapping[str, Any]]) -> Iterator[Metric]:
        for name, (figure, text) in self._GAUGES.items():
            family = GaugeMetricFamily(name, text, labels=("route",))
            for route_id, lag in sorted(by_route.items()):
                family.add_metric((route_id,), 1.0 if isinstance(lag[figure], Mapping) else float(lag[figure] or 0))
            yield family
