"""The routes of a worker: which source partitions it serves, from where each route goes on, and what it writes down of that.

Faust decides who has a source partition, and brings what is live; positions are the routes' own (`mplp.internal.routes`).
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from hashlib import blake2b

import orjson
import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from streams.bus.outgoing import outgoing
from streams.bus.publisher import Publisher, translated
from streams.codec.avro import Codec
from streams.concurrency import cancelled
from streams.errors import BackboneError
from streams.faust_app.brought import CHUNKS_MAX, Brought, NextOffset
from streams.faust_app.prefix import Chunk
from streams.faust_app.route_partition import RoutePartition, State
from streams.faust_app.route_reader import RouteChange, RoutesReader
from streams.faust_app.route_runner import Runner
from streams.faust_app.route_world import KafkaWorld
from streams.faust_app.tenure import Tenure
from streams.kafka import Kafka
from streams.limits import LOG_MESSAGE_BYTES_MAX
from streams.log.kafka_log import RANGE_OPTIONS, read_range
from streams.records import Json, Snapshot
from streams.routing.lateness import Lateness, Standing
from streams.routing.routes import ActiveRoute
from streams.routing.states import RouteState, place_key, record_of, state_of
from streams.routing.tasks import route_event, state_event
from streams.topics import RETRY_SUFFIX, ROUTE_STATES, partition_of

#: How often states are written down, seconds: what a successor repeats of what was done.
_SAVE_INTERVAL_S = 0.5
#: Where very many keys are parked they are written less often: no more bytes a second than that.
_SAVE_BYTES_PER_S = 1024 * 1024
_AGAIN_S = 1.0
#: How long the last word before partitions go may take, seconds.
_LAST_SAVE_S = 3.0

_log = structlog.get_logger("routes")

Place = tuple[str, int]  #: logical topic, partition


class RouteStage:
    """See the module. `failed` gets what must end the process."""

    def __init__(
        self, kafka: Kafka, codec: Codec, reader: RoutesReader, tenure: Tenure, *, failed: Callable[[BaseException], None],
        next_offset: NextOffset,
    ) -> None:  # fmt: skip
        self._kafka = kafka
        self._codec = codec
        self._reader = reader
        self._failed = failed
        self._next_offset = next_offset
        self._tenure = tenure
        self._writing = 0  # the generation in which states are being written
        self._publisher = Publisher(kafka, codec, lambda: tenure.check(self._writing))
        self._world = KafkaWorld(kafka, codec, tenure, failed)
        self._partitions: dict[Place, RoutePartition] = {}
        self._early: dict[Place, list[Chunk]] = {}  # what came before its partition was taken
        self._matched: frozenset[str] = frozenset()
        self._saved: dict[str, bytes] = {}  # key → digest of the state that was written last
        self._states_in = 1  # partitions of the topic of states
        self._changing = asyncio.Lock()
        self._saving = asyncio.Lock()
        self._lateness = Lateness()
        self._task: asyncio.Task[None] | None = None

    @property
    def topics(self) -> frozenset[str]:
        """What routes read (logical names), with what is put back."""
        read = {topic for active in self._reader.routes.values() for topic in active.route.topics}
        return frozenset(read | {topic + RETRY_SUFFIX for topic in read})

    @property
    def runners(self) -> Iterable[tuple[RoutePartition, Runner]]:
        """All that run here."""
        return [(partition, runner) for partition in self._partitions.values() for runner in partition.runners.values()]

    async def open(self, matched: Iterable[str]) -> None:
        """Begins; `matched` are the topics of which another stage buries what cannot be read. Raises `BackboneError`."""
        self._matched = frozenset(matched)
        await self._world.open()
        self._states_in = await self._publisher.partitions(ROUTE_STATES)
        self._task = asyncio.create_task(self._save_on())
        self._task.add_done_callback(self._ended)

    async def close(self) -> None:
        """Stops everything. Where a successor goes on was written down when the partitions were given back."""
        if self._task is not None:
            await cancelled(self._task)
        await self._drop(list(self._partitions))
        await self._world.close()
        await self._publisher.close()

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self._failed(error)

    # --- what the worker calls ---

    def offer(self, chunk: Chunk) -> None:
        """What Faust has fetched of a source partition; never waits."""
        place = self._kafka.names.logical(chunk.topic), chunk.partition
        partition = self._partitions.get(place)
        if partition is not None:
            partition.offer(chunk)
        elif len(early := self._early.setdefault(place, [])) < CHUNKS_MAX:
            early.append(chunk)

    async def room(self, chunk: Chunk) -> None:
        """Returns when there is room for a chunk, or after a short while."""
        partition = self._partitions.get((self._kafka.names.logical(chunk.topic), chunk.partition))
        if partition is not None:
            await partition.room()

    async def assigned(self, held: set[Place], generation: int) -> None:
        """These source partitions are this worker's, in this generation of its tenure. Raises `BackboneError`."""
        async with self._changing:
            if generation != self._tenure.generation:
                return  # a later assignment is on its way
            await self._drop([place for place in self._partitions if place not in held or self._tenure.broken])
            if not self._partitions:
                self._tenure.renew()
            if self._tenure.serve(generation):
                await self._take(sorted(held - self._partitions.keys()), generation)

    async def _take(self, fresh: Sequence[Place], generation: int) -> None:
        if not fresh:
            return
        self._world.forget_routed()
        states = await self._load(fresh)
        wanted: list[tuple[str, int, int | None]] = [(topic, partition, None) for topic, partition in fresh]
        begins = [(place, active) for place in fresh for active in self._of(place[0]) if (place, active.id) not in states]
        wanted += [(topic, partition, active.since_ms) for (topic, partition), active in begins]
        offsets = await self._world.lookup(wanted)
        if generation != self._tenure.generation:
            return  # read too early: whoever has them now may be further
        ends = dict(zip(fresh, offsets, strict=False))
        for ((topic, partition), active), offset in zip(begins, offsets[len(fresh) :], strict=True):
            # Somebody may have had the partition before, and written nothing down yet.
            states[(topic, partition), active.id] = State(position=offset, since_ms=active.since_ms)
        for place in fresh:
            routes = self._of(place[0])
            brought = Brought(partial(self._next_offset, self._kafka.names.physical(place[0]), place[1]))
            made = RoutePartition(self._world, *place, failed=self._failed, buries=self._buries(place[0]), brought=brought)
            self._partitions[place] = made
            made.start(routes, {active.id: states[place, active.id] for active in routes}, ends[place])
            for chunk in self._early.pop(place, ()):
                made.offer(chunk)
        self._early.clear()
        _log.info("routes.taken", partitions=len(fresh))

    async def revoked(self) -> None:
        """The partitions may be somebody else's in a moment: writes down how far they are. Later that would hide what the other writes."""
        if not self._tenure.leased:
            return
        try:
            async with asyncio.timeout(_LAST_SAVE_S):
                await self._save(self._tenure.generation)
        except (BackboneError, TimeoutError) as error:
            _log.warning("routes.not-saved", reason=str(error))  # a successor repeats a little more

    async def use(self, changes: Sequence[RouteChange]) -> None:
        """Routes have changed. Raises `BackboneError`."""
        async with self._changing:
            for change in changes:
                if change.active is None:
                    await self._withdraw(change.route_id)
                else:
                    await self._put(change.active)

    async def _put(self, active: ActiveRoute) -> None:
        places = [place for place in self._partitions if _source(place[0]) in active.route.topics]
        new = [place for place in places if active.id not in self._partitions[place].runners]
        offsets = await self._world.lookup([(topic, partition, active.since_ms) for topic, partition in new]) if new else []
        states = {place: State(position=offset, since_ms=active.since_ms) for place, offset in zip(new, offsets, strict=True)}
        for place in places:
            await self._partitions[place].change(active, active.id, states.get(place))
        for place in [place for place in self._partitions if place not in places]:  # a topic that it no longer reads
            await self._end(place, active.id)

    async def _withdraw(self, route_id: str) -> None:
        for place in list(self._partitions):
            await self._end(place, route_id)

    async def _end(self, place: Place, route_id: str) -> None:
        """The route is gone from a source partition: what it has not settled is told, and not delivered."""
        runner = await self._partitions[place].change(None, route_id, None)
        if runner is None:
            return
        dump = runner.dump()
        await self._forget(place, route_id)
        if dump["keys"]:
            offsets = {bytes.fromhex(key)[1:].decode(errors="replace"): entry[0] for key, entry in dump["keys"].items()}
            told = dict(sorted(offsets.items(), key=lambda each: each[1])[:100])
            data: dict[str, Json] = {"keys": len(offsets), "records": runner.waiting(), "offsets": told}
            shown = place_key(*place)
            await self._world.report(state_event("route.abandoned", route_id, shown, "warning", data, self._world.now()))

    def _of(self, topic: str) -> list[ActiveRoute]:
        """The routes that read a topic (also what is put back into it), in the order of their versions."""
        source = _source(topic)
        return sorted((each for each in self._reader.routes.values() if source in each.route.topics), key=lambda each: each.order)

    def _buries(self, topic: str) -> bool:
        return topic not in self._matched and not topic.endswith(RETRY_SUFFIX)

    # --- states ---

    async def _load(self, places: Sequence[Place]) -> dict[tuple[Place, str], State]:
        """The states of the routes in force on these source partitions."""
        wanted = set(places)
        found: dict[tuple[Place, str], State] = {}
        physical = self._kafka.names.physical(ROUTE_STATES)
        partitions = sorted({partition_of(place_key(*place), self._states_in) for place in places})
        try:
            async with self._kafka.consumer(**RANGE_OPTIONS) as consumer:
                tps = [TopicPartition(physical, number) for number in partitions]
                ends = await consumer.end_offsets(tps)
                for tp in tps:
                    async for stored in read_range(consumer, physical, tp.partition, 0, int(ends[tp])):
                        place, route = _place((stored.key or b"").decode(errors="replace"))
                        if place not in wanted:
                            continue
                        found.pop((place, route), None)
                        snapshot = None if stored.value is None else self._codec.decode(stored.value)
                        if isinstance(snapshot, Snapshot) and self._counts(route, stored.timestamp_ms):
                            state = state_of(snapshot, stored.timestamp_ms)
                            found[place, route] = State(position=int(state.state["position"]), state=state.state, since_ms=state.since_ms)
        except (KafkaError, OSError) as error:
            raise translated(error, ROUTE_STATES) from error
        return found

    def _counts(self, route: str, saved_ms: int) -> bool:
        """Whether a state belongs to a route in force, not to one of its name that was deleted before."""
        active = self._reader.routes.get(route)
        return active is not None and saved_ms >= active.since_ms

    async def _drop(self, places: Sequence[Place]) -> None:
        """These source partitions are no longer ours."""
        gone = [self._partitions.pop(place) for place in places]
        await asyncio.gather(*(partition.close() for partition in gone))
        for key in self._dumps(gone):
            self._saved.pop(key, None)

    def _dumps(self, partitions: Iterable[RoutePartition]) -> dict[str, Json]:
        return {
            _key((partition.place.topic, partition.place.partition), name): runner.dump()
            for partition in partitions
            for name, runner in partition.runners.items()
        }

    async def _save_on(self) -> None:
        clock = asyncio.get_running_loop().time
        not_before_s = clock()
        while True:
            await asyncio.sleep(_SAVE_INTERVAL_S)
            if self._tenure.holds and clock() >= not_before_s:
                try:
                    not_before_s = clock() + await self._save(self._tenure.generation) / _SAVE_BYTES_PER_S
                except BackboneError as error:
                    _log.warning("routes.waiting", code=error.code, message=error.message)
                    await asyncio.sleep(_AGAIN_S)
            await self._report_late()

    async def _report_late(self) -> None:
        """Tells once of a route that has been behind for long, and once that it is so no more."""
        runners = [(partition, runner) for partition, runner in self.runners if not runner.held]
        standings = [Standing(runner.plan.route.id, runner.behind, runner.waited_ms()) for _, runner in runners]
        for told in self._lateness.look(asyncio.get_running_loop().time() * 1000, standings):
            if told.seconds is None:
                event = route_event("route.caught-up", told.route, "info", {}, self._world.now())
            else:
                mine = [(partition.end - runner.position, runner) for partition, runner in runners if runner.plan.route.id == told.route]
                records = sum(max(0, ahead) + runner.waiting() for ahead, runner in mine)
                data: dict[str, Json] = {"records": records, "seconds": told.seconds}
                event = route_event("route.fell-behind", told.route, "warning", data, self._world.now())
            await self._world.report(event)

    async def _save(self, generation: int) -> int:
        """Writes down what has changed; what was told of it before has reached Kafka first. How many bytes. Raises `BackboneError`."""
        async with self._saving:
            changed: dict[str, Json] = {}
            digests: dict[str, bytes] = {}
            written = 0
            for key, dump in self._dumps(self._partitions.values()).items():
                text = orjson.dumps(dump)
                digest = blake2b(text, digest_size=16).digest()
                if self._saved.get(key) != digest:
                    changed[key], digests[key] = dump, digest
                    written += len(text)
            if changed:
                await self._world.flush()
                await self._write(changed, generation)
                self._saved |= digests
            return written

    async def _forget(self, place: Place, route_id: str) -> None:
        """Nobody goes on from there any more; what the next owner finds of a route that is gone does not count either."""
        key, generation = _key(place, route_id), self._tenure.generation
        while generation == self._tenure.generation:
            try:
                async with self._saving:
                    self._saved.pop(key, None)
                    await self._write({key: None}, generation)
                return
            except BackboneError as error:
                _log.warning("routes.waiting", code=error.code, message=error.message)
                await asyncio.sleep(_AGAIN_S)

    async def _write(self, states: Mapping[str, Json], generation: int) -> None:
        records = []
        for key, state in states.items():
            (topic, partition), route = _place(key)
            record = record_of(RouteState(route=route, topic=topic, partition=partition, state=state or {"position": 0, "keys": {}}))
            made = outgoing(self._codec, record, self._states_in, key=key, most=LOG_MESSAGE_BYTES_MAX)
            number = partition_of(place_key(topic, partition), self._states_in)
            records.append(made._replace(partition=number, value=None if state is None else made.value))
        self._writing = generation
        await self._publisher.send(ROUTE_STATES, records)


def _key(place: Place, route: str) -> str:
    return f"{place_key(*place)}/{route}"


def _place(key: str) -> tuple[Place, str]:
    """Of a key of a state: its source partition (-1: none), its route."""
    text, _, route = key.rpartition("/")
    topic, _, number = text.rpartition("/")
    return (topic, int(number) if number.isdigit() else -1), route


def _source(topic: str) -> str:
    return topic.removesuffix(RETRY_SUFFIX)
