"""Tells the others what happens to the records of each rule here: figures beside the heartbeat, and events of what was ignored.

Figures go to `mplp.internal.workers` under keys of their own (`<worker>/rules/<n>`), so that a thousand rules do not make every
heartbeat large.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterator, Mapping

import structlog

from streams.bus.publisher import Publisher
from streams.codec.avro import Codec
from streams.correlation.ignored import Ignored
from streams.correlation.rule_figures import INTERVAL_S, told
from streams.errors import BackboneError
from streams.kafka import Kafka
from streams.records import Heartbeat, Json
from streams.topics import SYSTEM_EVENTS, WORKERS

#: Figures that have not changed are told again after so many intervals.
_REPEATED_AFTER = 5

_log = structlog.get_logger("figures")


class RuleFigures:
    """See the module. Nothing that goes wrong here stops the worker: figures are told again, events wait."""

    def __init__(self, kafka: Kafka, codec: Codec, name: str, figures: Callable[[], Mapping[str, Mapping[str, Json]]]) -> None:
        """`figures`: place → rule → what has happened to its records (`Worker.rule_figures`)."""
        self._publisher = Publisher(kafka, codec)
        self._name = name
        self._figures = figures
        self._ignored = Ignored(name)
        self._last: Json = None
        self._unchanged = 0

    async def run(self) -> None:
        """Until cancelled."""
        try:
            while True:
                try:
                    await self.tell()
                except BackboneError as error:
                    _log.warning("figures.not-told", code=error.code, message=error.message)
                await asyncio.sleep(INTERVAL_S)
        finally:
            await self._publisher.close()

    async def tell(self) -> None:
        """Once."""
        places = self._figures()
        events = self._ignored.events(places, time.time_ns() // 1000)
        if events:
            await self._publisher.publish(events, SYSTEM_EVENTS, ())
        self._unchanged = self._unchanged + 1 if places == self._last else 0
        if self._unchanged % _REPEATED_AFTER:
            return
        for beat in self._beats(places):
            await self._publisher.publish_one(WORKERS, beat.process, beat, ())
        self._last = places

    def _beats(self, places: Mapping[str, Mapping[str, Json]]) -> Iterator[Heartbeat]:
        for process, data in told(self._name, places):
            yield Heartbeat(type="rules.counted", source=f"mplp/{self._name}", subject=self._name, process=process, host="", data=data)
