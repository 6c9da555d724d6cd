"""What of the world a worker can be given: by default Faust and Kafka; the simulation has its own."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from streams.faust_app.faust_feed import FaustFeed
from streams.faust_app.feed import OpenFeed
from streams.log.ports import LogPort


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerPorts:
    """Adapters, and rhythms that are no settings."""

    open_feed: OpenFeed = FaustFeed
    open_composites: Callable[[int], LogPort] | None = None  #: a partition of the composites' log; None: Kafka's
    watermark_interval_s: float = 0.1
    checkpoint_interval_s: float = 10.0
    checkpoint_records: int = 50_000  #: matches
    routes: bool = True  #: whether it delivers by routes, too
