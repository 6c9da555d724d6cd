"""The sink: topics into tables, every offset exactly once.

Theory of operation. For each partition of each sunk topic the sink reads on, cuts a block of offsets, appends the decision
(`Block`) to a partition of `mplp.internal.blocks` under a fence, and only then inserts exactly those offsets with a token that ClickHouse
recognises; `Inserted` follows. A sink that dies leaves at most decided blocks without `Inserted`: its successor reads the end of the
log of blocks, inserts those again (what is in the tables already is left out, the token guards the rest), and goes on after
the last block. A sink that lost its hold cannot decide anything any more, and asks the log before it inserts what it decided a while ago.

The partitions of the log of blocks are the units of work (`unit`): embedded all are ours, on a server a consumer group shares them
among the sinks. One task reads for all units; what waits is bounded: when too much waits, reading stops, so a ClickHouse
that is away stops the reading and nothing else.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import structlog
from aiokafka.errors import KafkaError

from services.history.kafka_feed import kafka_ports
from services.history.ports import Place, Ports
from services.history.reached import Reached
from services.history.session import Session
from services.history.store import History
from services.history.unit import RETRY_S, Pace
from streams.codec.avro import Codec
from streams.errors import BackboneError, Unavailable
from streams.kafka import Kafka

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class SinkStatus:
    """What the sink says of itself. `state`: starting, running, waiting (ClickHouse or Kafka is away), stopped."""

    state: str
    detail: str
    behind: int | None  #: offsets read and not inserted, as last known


class Sinking:
    """The sink over its ports."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._state, self._detail = "starting", ""
        self._reached = Reached()
        self._pace = Pace()
        self._session: Session | None = None
        self._began = asyncio.Event()  #: a session has read where it stands

    def status(self) -> SinkStatus:
        """State, detail and lag."""
        troubles = self._session.troubles() if self._session is not None else {}
        if self._state == "running" and troubles:
            (topic, number), trouble = next(iter(troubles.items()))
            return SinkStatus(state="waiting", detail=f"{topic}/{number}: {trouble}", behind=self.behind())
        return SinkStatus(state=self._state, detail=self._detail, behind=self.behind())

    def behind(self) -> int | None:
        """Offsets that are not inserted yet, as last seen; None before the first look."""
        return None if self._state == "starting" and self._session is None else self._reached.behind()

    async def run(self) -> None:
        """Sinks until cancelled. What is away is waited for; a lost hold is claimed anew."""
        delay = RETRY_S[0]
        try:
            while True:
                self._says("starting", "")
                session = self._session = Session(self._ports, self._reached, self._pace)
                try:
                    await session.run(self._has_begun)
                except (BackboneError, KafkaError, OSError) as error:
                    delay = RETRY_S[0] if self._began.is_set() else min(delay * 2, RETRY_S[1])
                    self._says("waiting", str(error))
                    log.warning("history.sink.waits", error=str(error), seconds=delay)
                finally:
                    self._began.clear()
                    self._session = None
                await asyncio.sleep(delay)
        finally:
            self._says("stopped", "")

    async def wait_until(self, ends: Mapping[Place, int] | None = None, timeout: float = 5.0) -> int:
        """Waits until all offsets before `ends` ((topic on the broker, partition) → offset) are inserted, at most `timeout` seconds.

        Without `ends`: those of all sunk topics at the call. Returns how many offsets are still missing. A sink that has
        not begun counts what it does not know as missing.
        """
        self._pace.hurry += 1
        try:
            async with asyncio.timeout(timeout):
                await self._began.wait()
                session = self._session
                if session is None:
                    return max(1, self.behind() or 0)
                session.wake()
                if ends is None:
                    ends = await session.current_ends()
                await self._reached.wait(ends)
        except (TimeoutError, Unavailable, KafkaError, OSError):
            return max(1, self._reached.behind(ends) if ends else self.behind() or 0)
        finally:
            self._pace.hurry -= 1
        return 0

    def _has_begun(self) -> None:
        self._says("running", "")
        self._began.set()

    def _says(self, state: str, detail: str) -> None:
        self._state, self._detail = state, detail


class Sink(Sinking):
    """The sink of Kafka's topics. Embedded it does all the work; on a server it shares it with the other sinks of the same history."""

    def __init__(self, kafka: Kafka, codec: Codec, history: History) -> None:
        super().__init__(kafka_ports(kafka, codec, history, shared=not history.embedded))
