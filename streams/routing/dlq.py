"""Dead letters over the bus: list, show, put back, purge.

A letter stays in its topic until retention takes it. What became of it lies in `<topic>.retry`: a record that puts it back, or one
without a value that says that it is no longer wanted. So a command that was killed in the middle can be run again: it sees what it did.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aiokafka import TopicPartition
from aiokafka.errors import KafkaError

from streams import limits
from streams.bus.handling import DEAD_LETTER_RETENTION_MS
from streams.bus.outgoing import Outgoing, event_outgoing
from streams.bus.publisher import translated
from streams.bus.validate import parse_fields
from streams.codec.avro import to_json
from streams.errors import BackboneError, InvalidInput, NotFound, Refused
from streams.log.kafka_log import RANGE_OPTIONS, read_range
from streams.records import SystemEvent, from_micros, iso, new_id, now
from streams.routing.control import DOCUMENTS
from streams.routing.letters import ERRORS, Letter, letter_of, purge_headers, redrive_headers, resolved_by
from streams.routing.selection import LetterSelection
from streams.topics import BY_NAME, DEAD_LETTER_SUFFIX, RETRY_SUFFIX
from streams.topics_apply import WantedTopic, create_topics

if TYPE_CHECKING:
    from streams.bus.bus import Bus

#: Letters put back, or purged, at a time.
_BATCH = 500
#: Letters that are named because they cannot be put back.
_REFUSED_NAMED_MAX = 100

Progress = Callable[[int], None]


@dataclass(slots=True)
class Redrive:
    """What a redrive did, or would do."""

    id: str
    matched: int = 0
    redriven: int = 0
    refused_count: int = 0
    refused: list[dict[str, str]] = field(default_factory=list)  #: the first: letter, code, message

    def to_dict(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "id": self.id, "matched": self.matched, "redriven": self.redriven, "refused_count": self.refused_count, "refused": self.refused,
        }  # fmt: skip

    def refuse(self, letter: Letter, code: str, message: str) -> None:
        """A letter cannot be put back."""
        self.refused_count += 1
        if len(self.refused) < _REFUSED_NAMED_MAX:
            self.refused.append({"id": letter.id, "code": code, "message": message})


async def letters(bus: Bus, selection: LetterSelection, after: str | None = None) -> AsyncIterator[Letter]:
    """The letters that are meant and not settled yet, by topic and partition, oldest first; those behind the letter `after`.

    Raises `BackboneError`.
    """
    selection.check()
    begin = None if after is None else _place(after)
    for topic in await _topics(bus, selection):
        async for letter in _letters_in(bus, topic):
            if (begin is None or letter.place > begin) and selection.wants(letter, bus.codec):
                yield letter


async def show(bus: Bus, letter_id: str) -> dict[str, Any]:
    """All that is known of a letter, settled or not. Raises `NotFound` (`letter.unknown`)."""
    topic, partition, offset = _place(letter_id)
    kafka = bus.kafka
    if topic not in await _dead_letter_topics(bus):
        raise _unknown(letter_id)
    async with kafka.consumer(**RANGE_OPTIONS) as consumer:
        try:
            if partition not in (
                consumer.partitions_for_topic(kafka.names.physical(topic)) or range(await bus.publisher.partitions(topic))
            ):
                raise _unknown(letter_id)
            async for stored in read_range(consumer, kafka.names.physical(topic), partition, offset, offset + 1):
                letter = letter_of(stored, kafka.names)
                trace = next((content for name, content in reversed(stored.headers) if name == f"{ERRORS}stacktrace"), b"")
                settled = (await _settled(bus, topic)).get(letter.id)
                return {
                    **letter.to_dict(), "time": _iso(letter.time_ms), "record": _record_of(bus, letter), "bytes": len(letter.value or b""),
                    "headers": {name: content.decode(errors="replace") for name, content in letter.headers},
                    "history": list(letter.history), "settled": settled, "stacktrace": trace.decode(errors="replace"),
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
    Raises `BackboneError`; run it again, and it goes on where it was.
    """
    report = Redrive(id=new_id())
    if edit is not None:
        await _check_single(bus, selection)
    in_force = {stored.record.id for stored in await DOCUMENTS.all(bus)}
    if not dry_run:
        await bus.publish(_event("dlq.redrive-started", report, selection, who, why))
    began = asyncio.get_running_loop().time()
    for topic in await _topics(bus, selection):
        batch: list[tuple[str, Outgoing]] = []
        async for letter in _letters_in(bus, topic):
            if not selection.wants(letter, bus.codec):
                continue
            report.matched += 1
            refusal = _refusal(letter, in_force, bus)
            if refusal is not None and edit is None:
                report.refuse(letter, *refusal)
                continue
            if dry_run:
                report.redriven += 1
                continue
            try:
                batch += await _put_back(bus, letter, report.id, who, edit)
            except InvalidInput as error:
                report.refuse(letter, error.code, error.message)
                continue
            report.redriven += 1
            if len(batch) >= _BATCH or rate is not None:
                await _send(bus, batch)
                batch = []
                if progress is not None:
                    progress(report.redriven)
            if rate is not None:
                await asyncio.sleep(max(0.0, report.redriven / rate - (asyncio.get_running_loop().time() - began)))
        await _send(bus, batch)
    if dry_run:
        report.redriven = 0
    else:
        await bus.publish(_event("dlq.redriven", report, selection, who, why))
    return report


async def purge(bus: Bus, selection: LetterSelection, *, who: str, why: str = "", dry_run: bool = False) -> dict[str, Any]:
    """Settles letters without putting them back: they are no longer listed. Told by `dlq.purged`. Raises `BackboneError`."""
    purge_id = new_id()
    matched = 0
    for topic in await _topics(bus, selection):
        batch: list[tuple[str, Outgoing]] = []
        async for letter in _letters_in(bus, topic):
            if selection.wants(letter, bus.codec):
                matched += 1
                headers = purge_headers(letter, purge=purge_id)
                batch.append((_retry_topic(topic), Outgoing(letter.place[1], letter.key, None, headers)))
            if len(batch) >= _BATCH and not dry_run:
                await _ensure_retry(bus, topic)
                await _send(bus, batch)
                batch = []
        if batch and not dry_run:
            await _ensure_retry(bus, topic)
            await _send(bus, batch)
    if matched and not dry_run:
        report = Redrive(id=purge_id, matched=matched)
        await bus.publish(_event("dlq.purged", report, selection, who, why))
    return {"id": purge_id, "matched": matched, "purged": 0 if dry_run else matched}


# --- reading ---


async def _topics(bus: Bus, selection: LetterSelection) -> list[str]:
    found = await _dead_letter_topics(bus)
    if selection.ids is not None:
        wanted = {_place(letter_id)[0] for letter_id in selection.ids}
        return [topic for topic in found if topic in wanted]
    return [topic for topic in found if selection.topic is None or topic == selection.topic + DEAD_LETTER_SUFFIX]


async def _dead_letter_topics(bus: Bus) -> list[str]:
    names = bus.kafka.names
    async with bus.kafka.consumer() as consumer:
        known = await consumer.topics()
    found = {names.logical(topic) for topic in known if topic.endswith(DEAD_LETTER_SUFFIX)}
    return sorted(topic for topic in found if names.physical(topic) in known)


async def _letters_in(bus: Bus, topic: str) -> AsyncIterator[Letter]:
    """The letters of a topic that are not settled, each once."""
    settled = await _settled(bus, topic)
    partition, seen = -1, set[tuple[str, str, int, int, int]]()
    async for letter in _all_in(bus, topic):
        if letter.place[1] != partition:  # a repeat lies where the letter does
            partition, seen = letter.place[1], set()
        if letter.subject in seen:
            continue
        seen.add(letter.subject)
        if letter.id not in settled:
            yield letter


async def _all_in(bus: Bus, topic: str) -> AsyncIterator[Letter]:
    kafka = bus.kafka
    physical = kafka.names.physical(topic)
    places = [TopicPartition(physical, number) for number in range(await bus.publisher.partitions(topic))]
    try:
        async with kafka.consumer(**RANGE_OPTIONS) as consumer:
            ends = await consumer.end_offsets(places)
            for tp in places:
                async for stored in read_range(consumer, physical, tp.partition, 0, int(ends[tp])):
                    yield letter_of(stored, kafka.names)
    except KafkaError as error:
        raise translated(error, topic) from error


async def _settled(bus: Bus, topic: str) -> dict[str, str]:
    """Letter → what became of it: `redriven` or `purged`. A repeat of a settled letter is settled, too, by its subject."""
    retry = _retry_topic(topic)
    try:
        partitions = await bus.publisher.partitions(retry)
    except NotFound:
        return {}
    kafka, found = bus.kafka, dict[str, str]()
    physical = kafka.names.physical(retry)
    places = [TopicPartition(physical, number) for number in range(partitions)]
    try:
        async with kafka.consumer(**RANGE_OPTIONS) as consumer:
            ends = await consumer.end_offsets(places)
            for tp in places:
                async for stored in read_range(consumer, physical, tp.partition, 0, int(ends[tp])):
                    settled = resolved_by(stored.headers)
                    if settled is not None:
                        found[settled[0]] = "purged" if settled[1] else "redriven"
    except KafkaError as error:
        raise translated(error, retry) from error
    return found


def _retry_topic(dead_letters: str) -> str:
    return dead_letters.removesuffix(DEAD_LETTER_SUFFIX) + RETRY_SUFFIX


def _place(letter_id: str) -> tuple[str, int, int]:
    topic, _, rest = letter_id.partition("/")
    partition, _, offset = rest.partition("/")
    if not topic.endswith(DEAD_LETTER_SUFFIX) or not (
        partition.isascii() and partition.isdigit() and offset.isascii() and offset.isdigit()
    ):
        raise InvalidInput("letter.id-invalid", f"{letter_id[:200]!r} is no id of a dead letter: it is topic/partition/offset.")
    return topic, int(partition), int(offset)


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
    found = 0
    async for _ in letters(bus, selection):
        found += 1
        if found > 1:
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


async def _put_back(bus: Bus, letter: Letter, redrive_id: str, who: str, edit: Mapping[str, Any] | None) -> list[tuple[str, Outgoing]]:
    """The records that put a letter back, and the topics that they go to. Raises `InvalidInput`: the edit is no event."""
    value, headers = letter.value, letter.headers
    if edit is not None:
        value, headers = _edited(bus, letter, edit)
    retry = await _ensure_retry(bus, letter.place[0])
    ours = redrive_headers(letter, redrive=redrive_id, who=who, at=iso(now()), edited=edit is not None)
    ours = [*headers, *ours[len(letter.headers) :]]
    if letter.stage == "match":
        partition = letter.partition % await bus.publisher.partitions(letter.topic)
        marker = Outgoing(letter.place[1], letter.key, None, ours)
        return [(letter.topic, Outgoing(partition, letter.key, value, headers)), (retry, marker)]
    return [(retry, Outgoing(letter.place[1], letter.key, value, ours))]


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


async def _ensure_retry(bus: Bus, dead_letters: str) -> str:
    """The topic for what is put back: as many partitions as that of the letters, made if it is missing."""
    retry = _retry_topic(dead_letters)
    try:
        await bus.publisher.partitions(retry)
    except NotFound:
        kafka = bus.kafka
        config = {"retention.ms": str(DEAD_LETTER_RETENTION_MS), "max.message.bytes": str(limits.LETTER_MESSAGE_BYTES_MAX)}
        partitions = await bus.publisher.partitions(dead_letters)
        wanted = WantedTopic(
            name=kafka.names.physical(retry), partitions=partitions, replication=kafka.settings.replication_factor, config=config
        )
        async with kafka.admin() as admin:
            await create_topics(admin, [wanted])
    return retry


async def _send(bus: Bus, batch: list[tuple[str, Outgoing]]) -> None:
    for topic in dict.fromkeys(topic for topic, _ in batch):
        await bus.publisher.send(topic, [record for each, record in batch if each == topic])


def _event(kind: str, report: Redrive, selection: LetterSelection, who: str, why: str) -> SystemEvent:
    counts = {"matched": report.matched, "redriven": report.redriven, "refused": report.refused_count}
    data = {"id": report.id, "who": who, "why": why, "selection": selection.to_dict(), **counts}
    return SystemEvent(type=kind, source="mplp/dlq", subject=report.id, correlation_id=report.id, data=data)
