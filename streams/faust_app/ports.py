"""What of the world a worker can be given: by default Faust and Kafka; the simulation has its own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Protocol

from streams.faust_app.faust_feed import FaustFeed
from streams.faust_app.feed import OpenFeed
from streams.log.ports import LogPort
from streams.settings import Settings
from streams.webhooks.addresses import Target
from streams.webhooks.client import WebhookClient
from streams.webhooks.outcomes import Outcome


class Webhooks(Protocol):
    """Calls webhooks."""

    async def post(self, target: Target, body: bytes, key: str, headers: Mapping[str, str]) -> tuple[Outcome, float]:
        """One attempt, and how long it took, milliseconds. Errors of any kind are outcomes."""

    async def close(self) -> None:
        """Closes the connections."""


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPorts:
    """Adapters, and rhythms that are no settings."""

    open_feed: OpenFeed = FaustFeed
    open_composites: Callable[[int], LogPort] | None = None  #: a partition of the composites' log; None: Kafka's
    open_webhooks: Callable[[Settings], Webhooks] = WebhookClient
    watermark_interval_s: float = 0.1
    checkpoint_interval_s: float = 10.0
    checkpoint_records: int = 50_000  #: matches
    routes: bool = True  #: whether it delivers by routes, too
