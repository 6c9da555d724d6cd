"""How far a route is behind, in records and in seconds, by what the workers have written down last and the ends of the topics."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from streams.bus.publisher import translated
from streams.log.kafka_log import RANGE_OPTIONS, read_range
from streams.records import now
from streams.routing.parked import states
from streams.topics import ROUTE_STATES

if TYPE_CHECKING:
    from streams.bus.bus import Bus


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """Of one route over all source partitions that it has been on."""

    records: int  #: of its topics, not looked at yet or waiting
    seconds: float  #: since the oldest of them arrived; 0: there is none

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {"records": self.records, "seconds": self.seconds}


async def lag(bus: Bus, route: str) -> Lag:
    """How far the route is behind now. Raises `BackboneError`."""
    found = await states(bus, route)
    names = bus.kafka.names
    places = [TopicPartition(names.physical(state.topic), state.partition) for state in found]
    records, oldest_ms = 0, None
    try:
        async with bus.kafka.consumer(**RANGE_OPTIONS) as consumer:
            ends = await consumer.end_offsets(places) if places else {}
            for tp, state in zip(places, found, strict=True):
                entries = state.state["keys"].values()
                begin = min([state.state["position"], *(entry[0] for entry in entries)])
                behind = max(0, int(ends[tp]) - state.state["position"]) + sum(entry[1] for entry in entries)
                records += behind
                if not behind:
                    continue
                async for stored in read_range(consumer, tp.topic, tp.partition, begin, begin + 1):
                    oldest_ms = min(stored.timestamp_ms, oldest_ms or stored.timestamp_ms)
    except KafkaError as error:
        raise translated(error, ROUTE_STATES) from error
    seconds = 0.0 if oldest_ms is None else max(0.0, now().timestamp() - oldest_ms / 1000)
    return Lag(records=records, seconds=round(seconds, 3))
