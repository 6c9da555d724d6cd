"""Dead letters over the bus: list, show, put back, purge.

A letter stays in its topic until retention takes it. What became of it lies in `<topic>.retry`: a record that puts it back, or one
without a value that says that it is no longer wanted. So a command that was killed in the middle can be run again: it sees what it did.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from streams.bus.outgoing import Outgoing, event_outgoing
from streams.bus.publisher import translated
from streams.bus.validate import parse_fields
from streams.codec.avro import to_json
from streams.errors import BackboneError, InvalidInput, NotFound, Refused
from streams.kafka import cluster_metadata, is_deleted
from streams.log.kafka_log import RANGE_OPTIONS, read_range
from streams.records import SystemEvent, from_micros, iso, new_id, now
from streams.routing.control import DOCUMENTS
from streams.routing.letters import ERRORS, Letter, letter_of, place_of, purge_headers, redrive_headers
from streams.routing.retry_topic import RetryTopic, Settling
from streams.routing.selection import LetterSelection
from streams.topics import BY_NAME, DEAD_LETTER_SUFFIX

if TYPE_CHECKING:
    from streams.bus.bus import Bus

#: Letters put back, or purged, at a time.
_BATCH = 1000
#: Letters that are named because they cannot be put back.
_REFUSED_NAMED_MAX = 100

Progress = Callable[[int], None]


@dataclass(slots=True)
class Redrive:
    """What a redrive did, or would do."""

    id: str
    matched: int = 0
    redriven: int = 0
    overtaken: int = 0  #: somebody else put them back, or purged them, meanwhile
    refused_count: int = 0
    refused: list[dict[str, str]] = field(default_factory=list)  #: the first: letter, code, message

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "id": self.id, "matched": self.matched, "redriven": self.redriven, "overtaken": self.overtaken,
            "refused_count": self.refused_count, "refused": self.refused,
        }  # fmt: skip

    def refuse(self, letter_id: str, code: str, message: str) -> None:
        """A letter cannot be put back."""
        self.refused_count += 1
        if len(self.refused) < _REFUSED_NAMED_MAX:
            self.refused.append({"id": letter_id, "code": code, "message": message})


async def letters(bus: Bus, selection: LetterSelection, after: str | None = None) -> AsyncGenerator[Letter, None]:
    """The letters that are meant and not settled yet, by topic and partition, oldest first; those behind the letter `after`.

    Who leaves before the end closes it (`aclosing`): a connection to Kafka is open until then. Raises `BackboneError`.
    """
    selection.check()
    begin = None if after is None else place_of(after)
    for topic in await _topics(bus, selection):
        async with aclosing(_letters_in(bus, RetryTopic(bus, topic), topic, selection)) as found:
            async for letter in found:
                if (begin is None or letter.place > begin) and selection.wants(letter, bus.codec):
                    yield letter


async def show(bus: Bus, letter_id: str) -> dict[str, Any]:
    """All that is known of a letter, settled or not. Raises `NotFound` (`letter.unknown`)."""
    topic, partition, offset = place_of(letter_id)
    kafka = bus.kafka
    if topic not in await _dead_letter_topics(bus):
        raise _unknown(letter_id)
    tp = TopicPartition(kafka.names.physical(topic), partition)
    async with kafka.consumer(**RANGE_OPTIONS) as consumer:
        try:
            if partition not in (consumer.partitions_for_topic(tp.topic) or range(await bus.publisher.partitions(topic))):
                raise _unknown(letter_id)
            # Reading ends where it is told to, and would wait for a letter that is yet to be written.
            end = min(offset + 1, int((await consumer.end_offsets([tp]))[tp]))
            async for stored in read_range(consumer, tp.topic, partition, offset, end):
                letter = letter_of(stored, kafka.names)
                trace = next((content for name, content in reversed(stored.headers) if name == f"{ERRORS}stacktrace"), b"")
                retry = RetryTopic(bus, topic)
                await retry.look()
                return {
                    **letter.to_dict(), "time": _iso(letter.time_ms), "record": _record_of(bus, letter), "bytes": len(letter.value or b""),
                    "headers": {name: content.decode(errors="replace") for name, content in letter.headers},
                    "history": list(letter.history), "settled": retry.what(letter), "stacktrace": trace.decode(errors="replace"),
                }  # fmt: skip
        except KafkaError as error:
            raise translated(error, topic) from error
    raise _unknown(letter_id)


async def redrive(
    bus: Bus, selection: LetterSelection, *, who: str, why: str = "", dry_run: bool = False, rate: float | None = None,
    edit: Mapping[str, Any] | None = None, progress: Progress | None = None,
) -> Redrive:  # fmt: skip
    """Puts letters back, in the order in which they came, each once: to the route or group that gave the record up.

    What nobody could read goes back to its topic, if it can be read now. `rate`: letters per second at most. `edit`: fields of the
    event that replace those of the record, of a single letter (`dlq.edit-several`). Told by `dlq.redrive-started` and `dlq.redriven`.
    Others may put back letters at the same time. Raises `BackboneError`; run it again, and it goes on where it was.
    """
    selection.check()
    report = Redrive(id=new_id())
    if edit is not None:
        await _check_single(bus, selection)
    in_force = {stored.record.id for stored in await DOCUMENTS.all(bus)}
    if not dry_run:
        await bus.publish(_event("dlq.redrive-started", report.id, selection, who, why, edited=edit is not None))
    pace = _Pace(rate)
    for topic in await _topics(bus, selection):
        retry = RetryTopic(bus, topic, report.id)
        try:
            async with aclosing(_batches(bus, retry, topic, selection, pace.batch)) as batches:
                async for batch in batches:
                    report.matched += len(batch)
                    put = [each for letter in batch if (each := await _put_back(bus, report, letter, in_force, who, edit)) is not None]
                    done = 0 if dry_run else await retry.settle(put)
                    report.redriven += done
                    report.overtaken += 0 if dry_run else len(put) - done
                    if progress is not None and done:
                        progress(report.redriven)
                    await pace.keep(report.redriven)
        finally:
            await retry.close()
    for letter_id in sorted(selection.ids or ()) if report.matched < len(selection.ids or ()) else ():
        if await _lacks(bus, letter_id):
            report.refuse(letter_id, "letter.unknown", "There is no such dead letter.")
    if not dry_run:
        counts = {"matched": report.matched, "redriven": report.redriven, "overtaken": report.overtaken, "refused": report.refused_count}
        await bus.publish(_event("dlq.redriven", report.id, selection, who, why, edited=edit is not None, **counts))
    return report


async def purge(bus: Bus, selection: LetterSelection, *, who: str, why: str = "", dry_run: bool = False) -> dict[str, Any]:
    """Settles letters without putting them back: they are no longer listed. Told by `dlq.purged`. Raises `BackboneError`."""
    selection.check()
    purge_id = new_id()
    matched = purged = 0
    for topic in await _topics(bus, selection):
        retry = RetryTopic(bus, topic, purge_id)
        try:
            async with aclosing(_batches(bus, retry, topic, selection, _BATCH)) as batches:
                async for batch in batches:
                    matched += len(batch)
                    if not dry_run:
                        purged += await retry.settle([_purged(letter, purge_id) for letter in batch])
        finally:
            await retry.close()
    if matched and not dry_run:
        await bus.publish(_event("dlq.purged", purge_id, selection, who, why, matched=matched, purged=purged))
    return {"id": purge_id, "matched": matched, "purged": purged}


class _Pace:
    """At most `rate` letters per second, a few at a time."""

    def __init__(self, rate: float | None) -> None:
        self._rate = rate
        self._began_s = asyncio.get_running_loop().time()
        #: Letters at a time: what goes together arrives together, so no more than a tenth of a second's.
        self.batch = _BATCH if rate is None else max(1, min(_BATCH, int(rate / 10)))

    async def keep(self, done: int) -> None:
        """Returns when so many may have been put back."""
        if self._rate is not None:
            await asyncio.sleep(max(0.0, done / self._rate - (asyncio.get_running_loop().time() - self._began_s)))


# --- reading ---


async def _topics(bus: Bus, selection: LetterSelection) -> list[str]:
    found = await _dead_letter_topics(bus)
    if selection.ids is not None:
        wanted = {place_of(letter_id)[0] for letter_id in selection.ids}
        return [topic for topic in found if topic in wanted]
    return [topic for topic in found if selection.topic is None or topic == selection.topic + DEAD_LETTER_SUFFIX]


async def _dead_letter_topics(bus: Bus) -> list[str]:
    names = bus.kafka.names
    async with bus.kafka.consumer() as consumer:
        try:
            known = await consumer.topics()
        except KafkaError as error:
            raise bus.kafka.unreachable(error) from error
    found = {names.logical(topic) for topic in names.own(known) if topic.endswith(DEAD_LETTER_SUFFIX)}
    return sorted(topic for topic in found if names.physical(topic) in known)


async def _batches(bus: Bus, retry: RetryTopic, topic: str, selection: LetterSelection, size: int) -> AsyncGenerator[list[Letter], None]:
    """The letters that are meant, so many at a time."""
    batch: list[Letter] = []
    async with aclosing(_letters_in(bus, retry, topic, selection)) as found:
        async for letter in found:
            if selection.wants(letter, bus.codec):
                batch.append(letter)
                if len(batch) >= size:
                    yield batch
                    batch = []
    if batch:
        yield batch


async def _letters_in(bus: Bus, retry: RetryTopic, topic: str, selection: LetterSelection) -> AsyncGenerator[Letter, None]:
    """The letters of a topic that are not settled, each once; of those that are meant by their ids no others are read."""
    await retry.look()
    partition, seen = -1, set[tuple[str, str, int, int, int]]()
    async with aclosing(_all_in(bus, topic, selection)) as found:
        async for letter in found:
            if letter.place[1] != partition:  # a repeat lies where the letter does
                partition, seen = letter.place[1], set()
            if letter.subject in seen:
                continue
            seen.add(letter.subject)
            if retry.what(letter) is None:
                yield letter


async def _all_in(bus: Bus, topic: str, selection: LetterSelection) -> AsyncGenerator[Letter, None]:
    kafka = bus.kafka
    physical = kafka.names.physical(topic)
    try:
        async with kafka.consumer(**RANGE_OPTIONS) as consumer:
            numbers = (await cluster_metadata(consumer._client)).partitions_for_topic(physical) or ()
            places = [TopicPartition(physical, number) for number in sorted(numbers)]
            ends = await consumer.end_offsets(places) if places else {}
            spans = [(tp.partition, 0, int(ends[tp])) for tp in places]
            if selection.ids is not None:
                named = sorted(place for place in map(place_of, selection.ids) if place[0] == topic)
                end_of = {number: end for number, _, end in spans}
                spans = [(number, offset, min(offset + 1, end_of[number])) for _, number, offset in named if number in end_of]
            for number, begin, end in spans:
                async with aclosing(read_range(consumer, physical, number, begin, end)) as stored_letters:
                    async for stored in stored_letters:
                        yield letter_of(stored, kafka.names)
    except KafkaError as error:
        if await is_deleted(kafka, physical):
            return  # deleted since it was listed: its letters are gone with it
        raise translated(error, topic) from error


async def _lacks(bus: Bus, letter_id: str) -> bool:
    """Whether there is no such letter, settled or not."""
    selection = LetterSelection(ids=frozenset({letter_id}))
    for topic in await _topics(bus, selection):
        async with aclosing(_all_in(bus, topic, selection)) as found:
            async for _ in found:
                return False
    return True


def _unknown(letter_id: str) -> NotFound:
    return NotFound("letter.unknown", f"There is no dead letter {letter_id[:200]}.")


def _record_of(bus: Bus, letter: Letter) -> Any:
    """The record as people get it; None if it cannot be read."""
    try:
        return to_json(bus.codec.decode(letter.value))
    except BackboneError:
        return None


def _iso(time_ms: int) -> str:
    return iso(from_micros(time_ms * 1000))


# --- putting back ---


async def _check_single(bus: Bus, selection: LetterSelection) -> None:
    count = 0
    async with aclosing(letters(bus, selection)) as found:
        async for _ in found:
            count += 1
            if count > 1:
                raise Refused("dlq.edit-several", "An edited record stands for a single letter; name it by its id.")


def _refusal(letter: Letter, in_force: set[str], bus: Bus) -> tuple[str, str] | None:
    """Why a letter cannot be put back, code and message; None: it can."""
    if letter.stage == "action":
        return "dlq.action", "It is an action of a rule: performing it again is for the rule that reads what happened."
    if letter.stage == "match":
        if letter.topic in BY_NAME and BY_NAME[letter.topic].log:
            return "topic.log", f"{letter.topic} is a log: nothing is put back into it."
        try:
            bus.codec.decode_raw(letter.value)
        except InvalidInput as error:
            return error.code, f"It still cannot be read: {error.message}"
    elif letter.stage in ("route", "filter", "transform", "deliver") and letter.route not in in_force:
        return "route.unknown", f"The route {letter.route} is not in force."
    return None


async def _put_back(
    bus: Bus, report: Redrive, letter: Letter, in_force: set[str], who: str, edit: Mapping[str, Any] | None
) -> Settling | None:
    """What puts a letter back; None: that cannot be done, which the report says."""
    refusal = _refusal(letter, in_force, bus)
    if refusal is not None and edit is None:
        report.refuse(letter.id, *refusal)
        return None
    value, headers, source = letter.value, letter.headers, None
    try:
        if edit is not None:
            value, headers = _edited(bus, letter, edit)
        if letter.stage == "match":
            partitions = await bus.publisher.partitions(letter.topic)
            source = letter.topic, Outgoing(letter.partition % partitions, letter.key, value, headers)
    except (InvalidInput, NotFound) as error:
        report.refuse(letter.id, error.code, error.message)
        return None
    ours = redrive_headers(letter, redrive=report.id, who=who, at=iso(now()), edited=edit is not None)
    ours = [*headers, *ours[len(letter.headers) :]]
    return Settling(letter, Outgoing(letter.place[1], letter.key, value if source is None else None, ours), source)


def _purged(letter: Letter, purge: str) -> Settling:
    return Settling(letter, Outgoing(letter.place[1], letter.key, None, purge_headers(letter, purge=purge)))


def _edited(bus: Bus, letter: Letter, edit: Mapping[str, Any]) -> tuple[bytes | None, tuple[tuple[str, bytes], ...]]:
    try:
        record = bus.codec.decode(letter.value)
        known = to_json(record) if isinstance(record, SystemEvent) else None
    except BackboneError:
        known = {}
    if known is None:
        raise InvalidInput("dlq.edit-unsupported", f"Only a SystemEvent can be edited, and {letter.id} is none.")
    known = {name: content for name, content in known.items() if name not in ("aggregate_id", "sequence", "epoch", "input")}
    made = event_outgoing(bus.codec, parse_fields({**known, **edit}), 1)
    theirs = tuple((name, content) for name, content in letter.headers if not name.startswith("ce_") and name != "content-type")
    return made.value, (*made.headers, *theirs)


def _event(kind: str, act_id: str, selection: LetterSelection, who: str, why: str, **more: Any) -> SystemEvent:
    data = {"id": act_id, "who": who, "why": why, "selection": selection.to_dict(), **more}
    return SystemEvent(type=kind, source="mplp/dlq", subject=act_id, correlation_id=act_id, data=data)
