"""Kafka, modules and the network as the world of routes (`route_ports.World`)."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from datetime import datetime
from functools import partial
from typing import Any

import orjson
import structlog
from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from streams.bus.bodies import Bodies
from streams.bus.executions import Executions
from streams.bus.handling import DeadLetters
from streams.bus.outgoing import outgoing
from streams.bus.publisher import Publisher, translated
from streams.bus.rendering import Rendered, rendered
from streams.bus.subscription import Decoder
from streams.bus.validate import EventFields
from streams.causation import depth_headers
from streams.codec.avro import Codec
from streams.codec.registry import load_schemas
from streams.errors import BackboneError, Fault, InvalidInput
from streams.faust_app.readers import Readers
from streams.faust_app.route_teller import Teller
from streams.faust_app.slices import Slices
from streams.faust_app.tenure import Tenure
from streams.kafka import Kafka
from streams.log.kafka_log import RANGE_OPTIONS, read_range
from streams.log.ports import Stored
from streams.log.reader import epoch_at
from streams.log.rule import ReadersRule, Verdict
from streams.matching.encoded import EncodedView
from streams.matching.matchers import RecordView
from streams.records import ModuleMessage, SystemEvent, from_micros, now, to_micros
from streams.routing.bounds import UNDER_WAY_MAX
from streams.routing.deliveries import DeliveryWriter
from streams.routing.events import EventWriter
from streams.routing.gates import Gates
from streams.routing.letters import HISTORY, Redriven
from streams.routing.plan import Ready, shown
from streams.routing.routes import ActiveRoute, Destination, ToModule, ToWebhook
from streams.routing.tasks import SOURCE
from streams.topics import BY_NAME, DELIVERIES, ROUTED_HEADER, SYSTEM_EVENTS
from streams.webhooks.client import WebhookClient
from streams.webhooks.outcomes import Delivered, Failed, Outcome

#: Stretches of logs that are read at a time, each by a consumer of its own.
_READERS_MAX = 8
#: Least time between two looks into the registry for schemas that are not known, seconds.
_LEARN_INTERVAL_S = 5.0
#: As what Faust brings: what nobody has committed is no record. Little is fetched at a time, and taken apart by and by: often the first of
#: it are enough.
_COMMITTED: Mapping[str, Any] = {
    **RANGE_OPTIONS, "isolation_level": "read_committed", "max_poll_records": 200, "max_partition_fetch_bytes": 128 * 1024,
}  # fmt: skip

_log = structlog.get_logger("routes")


class GivenUp(BackboneError):
    """A record that was given up, as its dead letter tells it."""


class KafkaWorld:
    """See `route_ports.World`. One per worker; `failed` gets what must end the process."""

    def __init__(self, kafka: Kafka, codec: Codec, tenure: Tenure, failed: Callable[[BaseException], None]) -> None:
        self._kafka = kafka
        self._tenure = tenure
        self._codec = codec
        self._publisher = Publisher(kafka, codec)
        self._sending: tuple[int, Publisher] | None = None  # of a generation, to destinations
        self._endings: set[asyncio.Task[None]] = set()  # of those of former generations
        self._reports = Publisher(kafka, codec)
        self._deliveries = Teller(self._reports, DELIVERIES, failed)
        self._events = Teller(self._reports, SYSTEM_EVENTS, failed)
        self._executions = Executions(kafka, codec, self._publisher, Decoder(kafka, codec))
        self._webhooks: WebhookClient | None = None  # of those who have none, nobody reads certificates
        self._letters: dict[str, DeadLetters] = {}
        self._partitions: dict[str, int] = {}
        self._readers = Readers(kafka, _READERS_MAX, _COMMITTED)
        self._severities: dict[bytes, str] = {}  # see `EncodedView`
        self._learned = float("-inf")
        self._routed = Routed(kafka)
        self.gates = Gates()

    async def open(self) -> None:
        """Looks up what never changes. Raises `BackboneError`."""
        for topic in (DELIVERIES, SYSTEM_EVENTS):
            self._partitions[topic] = await self._publisher.partitions(topic)

    async def flush(self) -> None:
        """Returns when the broker has everything that was told."""
        await self._deliveries.flush()
        await self._events.flush()

    async def close(self) -> None:
        """Closes what it opened."""
        await self._deliveries.close()
        await self._events.close()
        if self._webhooks is not None:
            await self._webhooks.close()
        await self._executions.close()
        await self._reports.close()
        await self._publisher.close()
        if self._sending is not None:
            await self._sending[1].close()
        await self.settle_down()
        await self._readers.close()

    def now(self) -> datetime:
        """See `World.now`."""
        return now()

    def now_ms(self) -> int:
        """See `World.now_ms`."""
        return time.time_ns() // 1_000_000

    # --- sources ---

    async def read(self, topic: str, partition: int, start: int, end: int) -> AsyncGenerator[Stored, None]:
        """See `World.read`."""
        try:
            rule = None
            if topic in BY_NAME and BY_NAME[topic].log:
                rule = ReadersRule(await self.epoch_at(topic, partition, start))
            async with aclosing(self._readers.read(self._kafka.names.physical(topic), partition, start, end)) as records:
                async for stored in records:
                    if rule is None or rule.judge_headers(stored.headers) is Verdict.VALID:
                        yield stored
        except (KafkaError, OSError) as error:
            raise translated(error, topic) from error

    async def epoch_at(self, topic: str, partition: int, offset: int) -> int:
        """See `World.epoch_at`."""
        try:
            return await epoch_at(self._kafka, self._codec, topic, partition, offset)
        except (KafkaError, OSError) as error:
            raise translated(error, topic) from error

    async def lookup(self, asked: Sequence[tuple[str, int, int | None]]) -> list[int]:
        """For each topic, partition and time (Unix time, milliseconds): the first offset since then; None: the end.

        Raises `BackboneError`.
        """
        names = self._kafka.names
        found: list[int] = []
        try:
            async with self._kafka.consumer(**_COMMITTED) as consumer:
                places = [TopicPartition(names.physical(topic), partition) for topic, partition, _ in asked]
                ends = await consumer.end_offsets(list(set(places)))
                for tp, (_, _, since_ms) in zip(places, asked, strict=True):
                    at = None if since_ms is None else (await consumer.offsets_for_times({tp: since_ms})).get(tp)
                    found.append(int(ends[tp]) if at is None else int(at.offset))
        except (KafkaError, OSError) as error:
            raise translated(error, asked[0][0] if asked else SYSTEM_EVENTS) from error
        return found

    def view(self, value: bytes | None) -> RecordView:
        """See `World.view`."""
        places = self._codec.envelope(value)
        if places is not None:
            assert value is not None
            return EncodedView(value, places, self._codec.decode_raw, self._severities)
        _, plain = self._codec.decode_raw(value)
        if not all(isinstance(plain.get(name), kind) for name, kind in (("id", str), ("type", str), ("time", int), ("data", str))):
            raise InvalidInput("record.invalid", "The record lacks the fields that all records share (id, type, time, data).")
        return RecordView(plain)

    async def learn(self, error: BackboneError) -> bool:
        """See `World.learn`."""
        now_s = asyncio.get_running_loop().time()
        if error.code != "schema.unknown" or now_s < self._learned + _LEARN_INTERVAL_S:
            return False
        self._learned = now_s
        self._codec.learn(await load_schemas(self._kafka))
        return True

    async def already(self, topic: str, route: str, source: str, partition: int, since_ms: int, *, by_others: bool) -> frozenset[int]:
        """See `World.already`."""
        partitions = await self._publisher.partitions(topic)
        return await self._routed.written(topic, f"{route}/{source}/{partition}", since_ms, partitions, anew=not by_others)

    def forget_routed(self) -> None:
        """What destinations have is to be read anew."""
        self._routed = Routed(self._kafka)

    # --- destinations ---

    async def partitions(self, topic: str) -> int:
        """See `World.partitions`."""
        return await self._publisher.partitions(topic)

    def events(self, route: str, place: str) -> EventWriter:
        """See `World.events`."""
        return EventWriter(self._codec, route, place)

    async def send(self, topic: str, records: Mapping[int, Sequence[bytes]]) -> None:
        """See `World.send`."""
        async with self._tenure.act() as generation:
            publisher = await self._sender(generation)
            await publisher.send_rendered(topic, records)

    async def _sender(self, generation: int) -> Publisher:
        """Writes in this generation, and in no other: what was begun before the partitions were shared anew is not sent after it."""
        if self._sending is None or self._sending[0] != generation:
            former = self._sending
            self._sending = generation, Publisher(self._kafka, self._codec, partial(self._tenure.check, generation))
            if former is not None:
                ending = asyncio.create_task(former[1].close())
                self._endings.add(ending)
                ending.add_done_callback(self._endings.discard)
        return self._sending[1]

    async def settle_down(self) -> None:
        """See `World.settle_down`."""
        if self._endings:
            await asyncio.wait(self._endings)
        if self._sending is not None:
            await self._sending[1].settle_down()

    def ours(self) -> bool:
        """See `World.ours`."""
        return self._tenure.holds

    def at_a_time(self, to: Destination) -> int:
        """See `World.at_a_time`. More would only stand in the way of what is begun later, and should go before."""
        return min(UNDER_WAY_MAX, self._kafka.settings.webhook_concurrency) if isinstance(to, ToWebhook) else UNDER_WAY_MAX

    async def post(self, to: ToWebhook, key: str, event: EventFields) -> Outcome:
        """See `World.post`."""
        if self._webhooks is None:
            self._webhooks = WebhookClient(self._kafka.settings)
        outcome, _ = await self._webhooks.post(to.target, orjson.dumps(shown(event)), key, to.headers)
        return outcome

    async def call(self, to: ToModule, key: str, ready: Ready, depth: int) -> Outcome:
        """See `World.call`."""
        event = ready.event
        request = ModuleMessage(
            id=key,
            type=f"{to.module}.requested",
            source=SOURCE,
            subject=event.subject or event.id,
            data=dict(ready.parameters or {}),
            tenant=event.tenant,
            correlation_id=event.correlation_id,
            causation_id=event.causation_id,
            kind="request",
            source_module="routes",
            target_module=to.module,
            operation=to.operation,
        )
        try:
            answer = await self._executions.answer_of(to.module, request, to.timeout_ms / 1000, depth_headers(depth + 1))
        except BackboneError as error:
            retryable = error.fault is Fault.PEER or error.code == "module.unknown"  # it may start yet
            return Failed(code=error.code, message=error.message, retryable=retryable)
        if answer.status != "error" and answer.error is None:
            return Delivered()
        if answer.error is None:
            return Failed(code="module.failed", message="The module failed.", retryable=False)
        return Failed(code=answer.error.code, message=answer.error.message, retryable=answer.error.retryable)

    # --- what is told ---

    async def bury(
        self, active: ActiveRoute | None, raw: Stored, redriven: Redriven | None, *, stage: str, code: str, message: str, attempts: int,
        first_ms: int,
    ) -> None:  # fmt: skip
        """See `World.bury`."""
        names = self._kafka.names
        route = active.id if active is not None else "" if redriven is None else redriven.route
        first_time = from_micros(first_ms * 1000)
        topic, more = names.logical(raw.topic), []
        if redriven is not None:
            topic = redriven.topic
            raw = Stored(
                topic=names.physical(topic), partition=redriven.partition, offset=redriven.offset, timestamp_ms=raw.timestamp_ms,
                key=raw.key, value=raw.value, headers=redriven.headers,
            )  # fmt: skip
            more = [(HISTORY, redriven.history)]
            first_time = _time(redriven.first_time, first_time)
        await self._letters_of(topic).write(
            raw, route=route, stage=stage, attempts=attempts, first_time=first_time, error=GivenUp(code, message), more=more
        )

    async def bury_unreadable(self, raw: Stored, error: BackboneError) -> None:
        """See `World.bury_unreadable`."""
        letters = self._letters_of(self._kafka.names.logical(raw.topic))
        await letters.write(raw, route="", stage="match", attempts=1, first_time=now(), error=error)

    def _letters_of(self, topic: str) -> DeadLetters:
        if topic not in self._letters:
            self._letters[topic] = DeadLetters(self._kafka, self._publisher, topic)
        return self._letters[topic]

    def deliveries(self, active: ActiveRoute, topic: str, partition: int) -> DeliveryWriter:
        """See `World.deliveries`."""
        return DeliveryWriter(self._codec, active, self._kafka.names.physical(topic), partition, self._partitions[DELIVERIES])

    async def tell(self, deliveries: Sequence[Rendered]) -> None:
        """See `World.tell`."""
        await self._deliveries.tell(deliveries)

    async def tell_all(self, deliveries: Mapping[int, Bodies]) -> None:
        """See `World.tell_all`."""
        await self._deliveries.tell_all(deliveries)

    async def report(self, event: SystemEvent) -> None:
        """See `World.report`."""
        await self._events.tell([rendered(outgoing(self._codec, event, self._partitions[SYSTEM_EVENTS]))])


class Routed:
    """What routes have written to destination topics lately, as the headers there tell. Each topic is read once, and then on."""

    def __init__(self, kafka: Kafka) -> None:
        self._kafka = kafka
        self._reading = asyncio.Lock()
        self._since_ms: dict[str, int] = {}
        self._read_to: dict[tuple[str, int], int] = {}
        self._offsets: dict[tuple[str, str], set[int]] = {}
        self._complete: set[str] = set()  # topics of which everything since then was read that was there when this was made

    async def written(self, topic: str, prefix: str, since_ms: int, partitions: int, *, anew: bool) -> frozenset[int]:
        """Offsets of the source partition of which the topic has what the route made (`prefix`: route/source/partition).

        Of what was written since then (Unix time, milliseconds), up to the present end of the topic; unless `anew` up to where it was when
        this was made, or further. Raises `BackboneError`.
        """
        async with self._reading:
            if anew or topic not in self._complete or since_ms < self._since_ms[topic]:
                self._complete.discard(topic)
                await self._read(topic, since_ms, partitions)
                self._complete.add(topic)
            return frozenset(self._offsets.get((topic, prefix), ()))

    async def _read(self, topic: str, since_ms: int, partitions: int) -> None:
        physical = self._kafka.names.physical(topic)
        places = [TopicPartition(physical, number) for number in range(partitions)]
        slices = Slices(asyncio.get_running_loop().time)
        try:
            async with self._kafka.consumer(**RANGE_OPTIONS) as consumer:
                ends: Mapping[TopicPartition, int] = await consumer.end_offsets(places)
                if since_ms < self._since_ms.get(topic, since_ms + 1):
                    found = await consumer.offsets_for_times(dict.fromkeys(places, since_ms))
                    for tp in places:
                        at = found.get(tp)
                        self._read_to[topic, tp.partition] = int(ends[tp]) if at is None else int(at.offset)
                    self._since_ms[topic] = since_ms
                for tp in places:
                    start = self._read_to.get((topic, tp.partition), 0)
                    async for stored in read_range(consumer, physical, tp.partition, start, int(ends[tp])):
                        self._take(topic, stored.headers)
                        if slices.over():
                            await asyncio.sleep(0)
                            slices.begin()
                    self._read_to[topic, tp.partition] = max(start, int(ends[tp]))
        except (KafkaError, OSError) as error:
            raise translated(error, topic) from error

    def _take(self, topic: str, headers: Sequence[tuple[str, bytes]]) -> None:
        for name, content in headers:
            if name == ROUTED_HEADER:
                prefix, _, offset = content.decode(errors="replace").rpartition("/")
                if offset.isdigit():
                    self._offsets.setdefault((topic, prefix), set()).add(int(offset))


def _time(text: str, otherwise: datetime) -> datetime:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        return otherwise
    return from_micros(to_micros(found))
