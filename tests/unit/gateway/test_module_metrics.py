"""How users' modules are, for Prometheus."""

from __future__ import annotations

import httpx

from services.gateway.metrics import Metrics
from services.gateway.ports import ModuleFigures


def test_a_module_is_there_as_long_as_it_is_offered() -> None:
    metrics = Metrics(lambda: 0)
    text = metrics.render({"invoices": ModuleFigures(serving=True, processes=2, running=5)})[0].decode()
    for line in ("serving", "1.0"), ("processes", "2.0"), ("running", "5.0"):
        assert f'mplp_module_{line[0]}{{module="invoices"}} {line[1]}' in text
    assert 'module="invoices"' not in metrics.render({})[0].decode()


async def test_the_exposition_has_them(http: httpx.AsyncClient) -> None:
    text = (await http.get("/metrics")).text
    assert 'mplp_module_serving{module="invoices"} 0.0' in text
    assert 'mplp_module_running{module="invoices"} 3.0' in text
