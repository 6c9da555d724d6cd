"""How far routes are behind, in records and in seconds, by what the workers have written down last and the ends of the topics.

No worker is asked, and none need run: a route whose workers are all gone is the one that matters most.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from aiokafka import AIOKafkaConsumer, TopicPartition
from aiokafka.errors import KafkaError

from streams.bus.publisher import translated
from streams.errors import NotFound
from streams.faust_app.route_reader import RoutesReader
from streams.kafka import cluster_metadata
from streams.log.kafka_log import RANGE_OPTIONS, read_range
from streams.records import Snapshot, now
from streams.routing.routes import ActiveRoute
from streams.routing.states import Down, RouteState, down_in, parked_in, state_key, state_of
from streams.topics import RETRY_SUFFIX, ROUTE_STATES

if TYPE_CHECKING:
    from streams.bus.bus import Bus

#: Of what waits only the first record is read.
_OPTIONS: Mapping[str, Any] = {**RANGE_OPTIONS, "isolation_level": "read_committed", "max_partition_fetch_bytes": 256 * 1024}


@dataclass(frozen=True, slots=True, kw_only=True)
class Lag:
    """Of one route over all its source partitions, what is put back for it included."""

    records: int  #: of its topics, not looked at yet or waiting
    seconds: float  #: since the oldest of them arrived; 0: there is none
    parked: int  #: keys whose oldest record waits for its next attempt
    down: Down | None = None  #: its destination, if it is left alone for a while

    def __str__(self) -> str:
        return f"{self.records} records behind, the oldest for {self.seconds:.1f} s, {self.parked} keys parked"

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        down = None if self.down is None else self.down.to_dict()
        return {"records": self.records, "seconds": self.seconds, "parked": self.parked, "down": down}


async def lag(bus: Bus, route: str) -> Lag:
    """How far the route is behind now. Raises `NotFound` (`route.unknown`), `BackboneError`."""
    found = await lags(bus, only=route)
    if route not in found:
        raise NotFound("route.unknown", f"There is no route {route}.")
    return found[route]


async def lags(bus: Bus, only: str | None = None) -> dict[str, Lag]:
    """How far the routes in force are behind now. Raises `BackboneError`."""
    reader = RoutesReader(bus.kafka, bus.codec)
    try:
        await reader.open()
    except KafkaError as error:
        raise translated(error, ROUTE_STATES) from error
    finally:
        await reader.close()
    return await Lags(bus).now([active for name, active in reader.routes.items() if only in (None, name)])


@dataclass(frozen=True, slots=True)
class _Standing:
    """Where a route stands on a source partition."""

    position: int
    begin: int  #: the first offset that is not settled
    waiting: int
    parked: int
    down: Down | None = None


#: Partition and place → offset and time of the first record from there on; None: there is none. Many routes stand at the same place.
_Oldest: TypeAlias = dict[tuple[TopicPartition, int], tuple[int, int] | None]


class Lags:
    """Looks again and again; each time only at what the workers have written down since."""

    def __init__(self, bus: Bus) -> None:
        self._bus = bus
        self._states: dict[str, RouteState] = {}
        self._read_to: dict[int, int] = {}

    async def now(self, routes: Iterable[ActiveRoute]) -> dict[str, Lag]:
        """The lags of these routes. Raises `BackboneError`."""
        routes = sorted(routes, key=lambda active: active.id)
        if not routes:
            return {}
        try:
            async with self._bus.kafka.consumer(**_OPTIONS) as consumer:
                await self._read_states(consumer)
                cluster = await cluster_metadata(consumer._client)  # asking for all topics never creates one
                found: dict[str, Lag] = {}
                oldest: _Oldest = {}
                for active in routes:
                    try:
                        found[active.id] = await self._lag(consumer, cluster, active, oldest)
                    except KafkaError:
                        known, cluster = cluster.topics(), await cluster_metadata(consumer._client)
                        if known <= cluster.topics():
                            raise
                        found[active.id] = await self._lag(consumer, cluster, active, oldest)  # a topic was deleted since it was listed
                return found
        except KafkaError as error:
            raise translated(error, ROUTE_STATES) from error

    async def _read_states(self, consumer: AIOKafkaConsumer) -> None:
        physical = self._bus.kafka.names.physical(ROUTE_STATES)
        places = [TopicPartition(physical, number) for number in range(await self._bus.publisher.partitions(ROUTE_STATES))]
        ends = await consumer.end_offsets(places)
        for tp in places:
            begin, end = self._read_to.get(tp.partition, 0), int(ends[tp])
            async for stored in read_range(consumer, physical, tp.partition, begin, end):
                snapshot = None if stored.value is None else self._bus.codec.decode(stored.value)
                if isinstance(snapshot, Snapshot):
                    state = state_of(snapshot, stored.timestamp_ms)
                    self._states[state.key] = state
                else:
                    self._states.pop((stored.key or b"").decode(errors="replace"), None)
            self._read_to[tp.partition] = max(begin, end)

    async def _lag(self, consumer: AIOKafkaConsumer, cluster: Any, active: ActiveRoute, seen: _Oldest) -> Lag:
        standing = await self._standing(consumer, cluster, active)
        ends = await consumer.end_offsets(list(standing)) if standing else {}
        records, parked, oldest_ms = 0, 0, None
        for tp, stands in standing.items():
            parked += stands.parked
            end = int(ends[tp])
            if not stands.waiting and stands.position >= end:
                continue
            if (tp, stands.begin) not in seen:
                async with aclosing(read_range(consumer, tp.topic, tp.partition, stands.begin, end)) as unsettled:
                    first = await anext(unsettled, None)
                seen[tp, stands.begin] = None if first is None else (first.offset, first.timestamp_ms)
            if (place := seen[tp, stands.begin]) is None:
                continue  # what ends a transaction takes an offset, too, or retention has taken what waited
            offset, arrived_ms = place
            records += stands.waiting + max(0, end - max(stands.position, offset))
            oldest_ms = min(arrived_ms, oldest_ms or arrived_ms)
        seconds = 0.0 if oldest_ms is None else max(0.0, now().timestamp() - oldest_ms / 1000)
        down = min((stands.down for stands in standing.values() if stands.down is not None), default=None)
        return Lag(records=records, seconds=round(seconds, 3), parked=parked, down=down)

    async def _standing(self, consumer: AIOKafkaConsumer, cluster: Any, active: ActiveRoute) -> dict[TopicPartition, _Standing]:
        """Of every source partition. Where nothing is written down yet, the route begins with what came since it was applied."""
        names = self._bus.kafka.names
        found: dict[TopicPartition, _Standing] = {}
        fresh: list[TopicPartition] = []
        for topic in active.route.topics:
            for source in (topic, topic + RETRY_SUFFIX):
                for number in sorted(cluster.partitions_for_topic(names.physical(source)) or ()):
                    tp = TopicPartition(names.physical(source), number)
                    state = self._states.get(state_key(source, number, active.id))
                    if state is None or state.saved_ms < active.since_ms:
                        fresh.append(tp)
                    else:
                        found[tp] = _standing(state)
        starts = await consumer.offsets_for_times(dict.fromkeys(fresh, active.since_ms)) if fresh else {}
        for tp in fresh:
            if (at := starts.get(tp)) is not None:
                found[tp] = _Standing(int(at.offset), int(at.offset), 0, 0)
        return found


def _standing(state: RouteState) -> _Standing:
    position, entries = int(state.state["position"]), state.state["keys"].values()
    begin = min([position, *(entry[0] for entry in entries)])
    return _Standing(position, begin, sum(entry[1] for entry in entries), sum(1 for _ in parked_in(state)), down_in(state))
