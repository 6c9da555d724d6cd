"""The rules' figures as Prometheus gets them."""

from __future__ import annotations

from services.gateway.metrics import Metrics
from streams.correlation.tallies import Tally


def test_the_figures_of_rules_are_metrics_of_now() -> None:
    figures = {"r": Tally(matched=7, late=2, composites=3, groups=4, evicted=1).to_dict()}
    metrics = Metrics(lambda: 0, lambda: figures)
    text = metrics.render()[0].decode()
    assert 'mplp_rule_records_total{outcome="matched",rule="r"} 7.0' in text
    assert 'mplp_rule_records_total{outcome="late",rule="r"} 2.0' in text
    assert 'mplp_rule_composites_total{rule="r"} 3.0' in text
    assert 'mplp_rule_groups{rule="r"} 4.0' in text
    assert 'mplp_rule_groups_evicted_total{rule="r"} 1.0' in text
    figures.clear()
    assert 'rule="r"' not in metrics.render()[0].decode()
