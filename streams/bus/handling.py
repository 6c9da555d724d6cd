"""Handlers: a function called with each record of a topic, as a member of a consumer group; what it cannot handle goes to the dead letters.

A record is acknowledged when its handler has returned, or when its dead letter is acknowledged: never before, so nothing is
dropped. If the dead letter cannot be written, handling stops with that error and the record comes again.
"""

from __future__ import annotations

import asyncio
import inspect
import traceback
from collections.abc import Awaitable, Callable, Mapping
from datetime import datetime
from typing import Any, TypeAlias

import structlog
from aiokafka.errors import KafkaError

from streams.bus.group import GroupSource
from streams.bus.outgoing import Headers, Outgoing
from streams.bus.publisher import Publisher, translated
from streams.bus.selection import Selection
from streams.bus.subscription import Decoder
from streams.errors import BackboneError, InvalidInput, NotFound
from streams.kafka import Kafka
from streams.records import iso, now
from streams.topics import DEAD_LETTER_SUFFIX, letters_topic
from streams.topics_apply import WantedTopic, create_topics

Handler: TypeAlias = Callable[[Any], Awaitable[Any] | Any]

#: Longest stack trace and message in a header, bytes: a dead letter must fit where the record fitted.
HEADER_BYTES_MAX = 8 * 1024

_ERRORS = "__streams.errors."
_OURS = "mplp.errors."

_log = structlog.get_logger("streams.bus")


class DeadLetters:
    """Writes records to `<topic>.dlq` with their original bytes; creates that topic when it is missing."""

    def __init__(self, kafka: Kafka, publisher: Publisher, topic: str) -> None:
        self.topic = topic + DEAD_LETTER_SUFFIX
        self._source = topic
        self._kafka = kafka
        self._publisher = publisher

    async def write(
        self, raw: Any, *, route: str, stage: str, attempts: int, first_time: datetime, error: BaseException, more: Headers = ()
    ) -> None:
        """Returns when the broker has it. Raises `Unavailable` and the like when it cannot be written."""
        partitions = await self._partitions()
        errors = error_headers(raw, route=route, stage=stage, attempts=attempts, first_time=first_time, error=error)
        headers = [*raw.headers, *errors, *more]
        # The same partition as the original's, so that a key's letters stay in order.
        letter = Outgoing(raw.partition % partitions, raw.key, raw.value, headers)
        await self._publisher.send(self.topic, [letter])

    async def _partitions(self) -> int:
        try:
            return await self._publisher.partitions(self.topic)
        except NotFound:
            await self._create(await self._publisher.partitions(self._source))
            return await self._publisher.partitions(self.topic)

    async def _create(self, partitions: int) -> None:
        """Returns when the broker knows the topic, which may be a moment after it was made."""
        kafka = self._kafka
        wanted = WantedTopic(
            name=kafka.names.physical(self.topic),
            partitions=partitions,
            replication=kafka.settings.replication_factor,
            config=letters_topic(self.topic).config(),
        )
        try:
            async with kafka.admin() as admin:
                await create_topics(admin, [wanted])
        except KafkaError as error:
            raise translated(error, self.topic) from error


def error_headers(
    raw: Any, *, route: str, stage: str, attempts: int, first_time: datetime, error: BaseException
) -> list[tuple[str, bytes]]:
    """What went wrong, with Kafka Streams' names and ours. Numbers are decimal text."""
    kind = type(error)
    name = error.code if isinstance(error, BackboneError) else f"{kind.__module__}.{kind.__qualname__}"
    values: Mapping[str, str] = {
        _ERRORS + "topic": raw.topic,
        _ERRORS + "partition": str(raw.partition),
        _ERRORS + "offset": str(raw.offset),
        _ERRORS + "exception": name,
        _ERRORS + "message": str(error),
        _ERRORS + "stacktrace": "".join(traceback.format_exception(error)),
        _OURS + "stage": stage,
        _OURS + "route": route,
        _OURS + "attempts": str(attempts),
        _OURS + "first_time": iso(first_time),
    }
    # Of a long trace the end says most, of a long message the beginning.
    return [(name, _cut(value, tail=name.endswith("stacktrace"))) for name, value in values.items()]


def _cut(text: str, *, tail: bool) -> bytes:
    raw = text.encode(errors="replace")
    if len(raw) <= HEADER_BYTES_MAX:
        return raw
    kept = raw[-HEADER_BYTES_MAX:] if tail else raw[:HEADER_BYTES_MAX]
    return kept.decode(errors="ignore").encode()


async def handle(
    source: GroupSource, decoder: Decoder, dead_letters: DeadLetters, *, group: str, handler: Handler, selection: Selection, topic: str
) -> None:
    """Calls the handler for each record until cancelled. See the module's text, and `Bus.handle`."""
    selection.check()
    await source.open()
    try:
        while (fetched := await source.fetch()) is not None:
            generation = source.generation
            for raw in fetched:
                if source.generation != generation:
                    break  # rebalanced: the rest comes again, here or elsewhere
                await _handle_one(source, decoder, dead_letters, raw, group=group, handler=handler, selection=selection)
                if source.generation == generation:
                    await source.acknowledge(raw)
    finally:
        # Also on cancellation: what has been handled is committed, so that it does not come again.
        await asyncio.shield(source.close())


async def _handle_one(
    source: GroupSource, decoder: Decoder, dead_letters: DeadLetters, raw: Any, *, group: str, handler: Handler, selection: Selection
) -> None:
    if not source.knows(raw):
        await source.learn(raw)
    if not source.counts(raw) or raw.value is None:
        return
    first_time = now()
    stage = "decode"
    try:
        record = await decoder.settled(raw.value, selection)
        if record is None:
            return
        stage = "handler"
        result = handler(record)
        if inspect.isawaitable(result):
            await result
    except Exception as error:  # whatever a user's handler raises becomes a dead letter, with its trace
        if stage == "decode" and not isinstance(error, InvalidInput):
            raise
        _log.warning(
            "record.dead",
            code=getattr(error, "code", type(error).__name__),
            reason=str(error),
            stage=stage,
            group=group,
            partition=raw.partition,
            offset=raw.offset,
            topic=dead_letters.topic,
        )
        await dead_letters.write(raw, route=group, stage=stage, attempts=1, first_time=first_time, error=error)
