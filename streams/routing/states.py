"""What routes have left on source partitions, as it lies on `mplp.internal.routes`: one compacted record per route and partition. Pure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import orjson

from streams.errors import Defect
from streams.records import Json, Snapshot, from_micros, iso
from streams.routing.items import Failure

SOURCE = "mplp/routes"


@dataclass(frozen=True, slots=True, kw_only=True)
class RouteState:
    """Where one route goes on, on one source partition."""

    route: str
    topic: str  #: logical name
    partition: int
    state: Json  #: `position`, `keys`; of keys `orders`, to topics `sending_ms`, while the destination is left alone `down`
    saved_ms: int = 0  #: Unix time, Kafka's

    @property
    def key(self) -> str:
        """Of the record."""
        return state_key(self.topic, self.partition, self.route)

    @property
    def since_ms(self) -> int:
        """Since when something that is not settled in it may have been delivered to a topic, Unix time."""
        return min(self.saved_ms, int(self.state.get("sending_ms", self.saved_ms)))


@dataclass(frozen=True, slots=True, kw_only=True)
class Parked:
    """A key that waits for its next attempt, and everything behind it."""

    route: str
    topic: str
    partition: int
    key: str | None
    offset: int
    waiting: int  #: records, about
    failure: Failure

    def to_dict(self) -> dict[str, Json]:
        """As JSON."""
        failure = self.failure
        return {
            "route": self.route, "topic": self.topic, "partition": self.partition, "offset": self.offset, "key": self.key,
            "waiting": self.waiting, "attempts": failure.attempts, "code": failure.code, "message": failure.message,
            "since": _iso(failure.first_ms), "next_attempt": _iso(failure.due_ms),
        }  # fmt: skip


@dataclass(frozen=True, slots=True, order=True)
class Down:
    """A destination that is left alone."""

    since_ms: int  #: Unix time
    next_ms: int  #: when an attempt may be made again
    error: str  #: what it was taken to be down by

    def to_dict(self) -> dict[str, Json]:
        """As JSON."""
        return {"since": _iso(self.since_ms), "next_attempt": _iso(self.next_ms), "error": self.error}


def down_in(state: RouteState) -> Down | None:
    """The destination, if a worker had it left alone when the state was written."""
    down = state.state.get("down")
    return None if down is None else Down(*down)


def state_key(topic: str, partition: int, route: str) -> str:
    """The key of a route's state on a source partition."""
    return f"{place_key(topic, partition)}/{route}"


def place_key(topic: str, partition: int) -> str:
    """What decides the partition in which the states of a source partition lie."""
    return f"{topic}/{partition}"


def record_of(state: RouteState) -> Snapshot:
    """The state as a record."""
    return Snapshot(
        type="route.state", source=SOURCE, subject=state.key, aggregate_id=state.key, log=state.topic, partition=state.partition,
        offset=int(state.state["position"]), epoch=0, state=orjson.dumps(state.state),
    )  # fmt: skip


def state_of(snapshot: Snapshot, saved_ms: int) -> RouteState:
    """The state of a record. Raises `Defect` (`route.state-unreadable`)."""
    try:
        place, _, route = snapshot.aggregate_id.rpartition("/")
        topic, _, partition = place.rpartition("/")
        state = orjson.loads(snapshot.state)
        return RouteState(route=route, topic=topic, partition=int(partition), state=state, saved_ms=saved_ms)
    except ValueError as error:
        raise Defect("route.state-unreadable", f"The state {snapshot.aggregate_id} cannot be read: {error}") from error


def parked_in(state: RouteState) -> Iterator[Parked]:
    """The parked keys of a state, the oldest first."""
    found = [(entry[0], text, entry) for text, entry in state.state["keys"].items() if len(entry) > 2]
    for offset, text, entry in sorted(found):
        raw = bytes.fromhex(text)
        attempts, first_ms, due_ms, code, message, generation = entry[2:]
        yield Parked(
            route=state.route, topic=state.topic, partition=state.partition, offset=offset, waiting=entry[1],
            key=raw[1:].decode(errors="replace") if raw.startswith(b"=") else None,
            failure=Failure(attempts=attempts, first_ms=first_ms, due_ms=due_ms, code=code, message=message, generation=generation),
        )  # fmt: skip


def _iso(time_ms: int) -> str:
    return iso(from_micros(time_ms * 1000))
