"""The bus: publish, subscribe, handle, look back, ask; and run workflows and modules through their topics."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Literal

from streams import topics
from streams.bus import workflows as published
from streams.bus.asking import Asking
from streams.bus.executions import Executions
from streams.bus.group import GroupSource
from streams.bus.handling import DeadLetters, Handler, handle
from streams.bus.history import EVENT_TOPICS, HistoryPage, page
from streams.bus.keeping import Keeping
from streams.bus.keyed import Keyed, when_there
from streams.bus.messages import Messaging
from streams.bus.outgoing import Headers
from streams.bus.publisher import Published, Publisher
from streams.bus.selection import Selection
from streams.bus.sources import AssignedSource, parse_since
from streams.bus.sql import Sql
from streams.bus.subscription import Decoder, Delivered, Subscription
from streams.bus.validate import parse_time
from streams.codec.avro import Codec
from streams.codec.registry import connect_codec
from streams.concurrency import side_by_side
from streams.errors import InvalidInput
from streams.kafka import Kafka
from streams.records import Json, Record, WorkflowTransition
from streams.routing.parse_retry import parse_retry
from streams.settings import Settings
from streams.tracebacks import keep_stdout_clean

#: How long a command or a module may take to answer, seconds.
ANSWER_TIMEOUT_S = 30.0


@asynccontextmanager
async def connect(settings: Settings | None = None) -> AsyncIterator[Bus]:
    """A bus on the Kafka of the settings (default: environment, `mplp.toml`, the running `mplp up`), closed at the end.

    Raises `Unavailable` (`kafka.unreachable`), and `InvalidInput` (`schema.unregistered`) where `mplp topics apply` never ran.
    """
    keep_stdout_clean()
    kafka = Kafka(settings if settings is not None else Settings())
    bus = Bus(kafka, await connect_codec(kafka))
    try:
        yield bus
    finally:
        await bus.close()


class Bus(Asking, Keeping, Messaging):
    """Everything that users import. Safe for use by many tasks of one event loop. Topics are given by logical name."""

    def __init__(self, kafka: Kafka, codec: Codec) -> None:
        self.kafka = kafka
        self.codec = codec
        self.publisher = Publisher(kafka, codec)
        self._decoder = Decoder(kafka, codec)
        self._subscriptions: set[Subscription[Any]] = set()
        self._executions = Executions(kafka, codec, self.publisher, self._decoder)
        self._sql = Sql(kafka.settings)

    async def close(self) -> None:
        """Closes all subscriptions and clients."""
        for subscription in list(self._subscriptions):
            await subscription.aclose()
        await self._executions.close()
        await self._sql.close()
        await self.publisher.close()

    # -- publish ---------------------------------------------------------------------------------------------------

    async def publish(
        self,
        events: Record | Mapping[str, Any] | Iterable[Record | Mapping[str, Any]],
        topic: str = topics.SYSTEM_EVENTS,
        *,
        traceparent: str | None = None,
    ) -> list[Published]:
        """Publishes one event or many; returns when the broker has them, with their places in the order given.

        An event is a `SystemEvent` or a mapping of its fields. The key is `subject` (`id` when empty), `source` defaults to
        `mplp`, `correlation_id` to `id`. Everything is checked before anything is sent: `InvalidInput` and `TooLarge` name the
        fault by code and pointer (`/events/3/data/x` in a list), `NotFound` is `topic.unknown`. `Unavailable` leaves open
        which records have arrived; publishing the same records again is safe, since readers ignore an id they have seen.
        """
        headers = () if traceparent is None else (("traceparent", _traceparent(traceparent)),)
        return await self.publisher.publish(events, topic, headers)

    async def send(self, topic: str, key: str, record: Record, headers: Headers = ()) -> Published:
        """Sends any record under a key (partitioned by murmur2). For logs use the kernel: `InvalidInput` (`topic.log`)."""
        return await self.publisher.publish_one(topic, key, record, headers)

    # -- subscribe -------------------------------------------------------------------------------------------------

    def subscribe(
        self,
        topic: str,
        *,
        since: str | datetime = "now",
        type: str | None = None,
        source: str | None = None,
        where: str | None = None,
        group: str | None = None,
        key: str | None = None,
    ) -> Subscription[Any]:
        """Records of a topic as they come, decoded; on logs only those that count (no fences, positions, void records).

        `since` is `now`, `beginning` or a time (Kafka's timestamp); `type` and `source` are globs, `where` is CEL, `key` the Kafka key.
        With `group` the members of a consumer group share the records, each is acknowledged when the next is asked for, and
        `since` holds only for a new group. A record that cannot be read is skipped, counted (`skipped`) and reported.
        Ending it: see `streams.bus.subscription`. Raises on first use `NotFound` (`topic.unknown`), `InvalidInput` (`since.invalid`,
        `expression.invalid`).
        """
        selection = Selection(type=type, source=source, where=where)
        begin = parse_since(since)
        origin = (
            GroupSource(self.kafka, self.codec, topic, group, begin)
            if group is not None
            else AssignedSource(self.kafka, self.codec, topic, begin)
        )
        return self._subscribed(
            Subscription(origin, self._decoder, topic, selection, _record, key=key, on_close=self._subscriptions.discard)
        )

    async def unsubscribe(self, subscription: Subscription[Any]) -> None:
        """Ends a subscription from anywhere: a loop over it that waits for a record ends, and the connection is closed."""
        await subscription.aclose()

    def read(
        self,
        topic: str,
        *,
        since: str | datetime = "beginning",
        until_end: bool = False,
        key: str | None = None,
        partition: int | None = None,
        type: str | None = None,
        source: str | None = None,
        where: str | None = None,
    ) -> Subscription[Delivered]:
        """As `subscribe` without a group, with each record's place; with `until_end` it ends where the topic ended at the start."""
        selection = Selection(type=type, source=source, where=where)
        partitions = None if partition is None else [partition]
        origin = AssignedSource(self.kafka, self.codec, topic, parse_since(since), partitions=partitions, until_end=until_end)
        return self._subscribed(Subscription(origin, self._decoder, topic, selection, _same, key=key, on_close=self._subscriptions.discard))

    async def handle(
        self,
        topic: str,
        *,
        group: str,
        handler: Handler,
        since: str | datetime = "now",
        type: str | None = None,
        source: str | None = None,
        where: str | None = None,
        concurrency: int = 1,
        retry: Mapping[str, Any] | None = None,
        order: Literal["key", "none"] = "key",
    ) -> None:
        """Calls `handler(record)` (plain or async) for each record until cancelled, as a member of `group`.

        With `concurrency` up to so many calls run side by side, of each Kafka key one at a time and in order (`order`: or in none).
        `retry` is as in a route: a record that fails is tried again, and meanwhile only later records of its key wait. Dead letters
        that are put back come again, to their group only.

        A handler that raises sends the record's original bytes to `<topic>.dlq` (stage `handler`), one that cannot be decoded
        goes there too (stage `decode`), and the others go on. If a dead letter cannot be written, this raises and the record
        comes again. Many handlers and groups run side by side, each in a task of its own.
        """
        policy = parse_retry(retry)
        origin = GroupSource(self.kafka, self.codec, topic, group, parse_since(since))
        letters = DeadLetters(self.kafka, self.publisher, topic)
        selection = Selection(type=type, source=source, where=where)
        selection.check()

        def keyed(origin: GroupSource, *, redriven: bool) -> Keyed:
            return Keyed(
                self.kafka, origin, self._decoder, letters, group=group, handler=handler, selection=selection, concurrency=concurrency,
                policy=policy, ordered=order == "key", redriven=redriven,
            )  # fmt: skip

        if concurrency == 1 and retry is None:
            first = handle(origin, self._decoder, letters, group=group, handler=handler, selection=selection, topic=topic)
        else:
            first = keyed(origin, redriven=False).run()
        back = GroupSource(self.kafka, self.codec, topic + topics.RETRY_SUFFIX, f"{group}.retry", "beginning")
        await side_by_side(first, when_there(self.publisher, topic + topics.RETRY_SUFFIX, keyed(back, redriven=True).run))

    # -- look back and ask -----------------------------------------------------------------------------------------

    async def history(
        self,
        *,
        type: str | None = None,
        source: str | None = None,
        subject: str | None = None,
        correlation_id: str | None = None,
        since: str | datetime | None = None,
        until: str | datetime | None = None,
        where: str | None = None,
        topics: Sequence[str] = EVENT_TOPICS,
        limit: int = 10_000,
    ) -> list[Record]:
        """The records that match, oldest first by their `time`: the first `limit` of them. Reads the topics, so it works without a history.

        `type` and `source` are globs; `since` (inclusive) and `until` (exclusive) are about the records' `time`.
        """
        wanted = {"type": type, "source": source, "subject": subject, "correlation_id": correlation_id, "where": where}
        return (await self.history_page(**wanted, since=since, until=until, topics=topics, limit=limit)).records

    async def history_page(
        self, *, type: str | None = None, source: str | None = None, subject: str | None = None, correlation_id: str | None = None,
        since: str | datetime | None = None, until: str | datetime | None = None, where: str | None = None,
        topics: Sequence[str] = EVENT_TOPICS, limit: int = 1000, after: str | None = None,
    ) -> HistoryPage:  # fmt: skip
        """As `history`, a page at a time: give the `next` of a page as `after` for the one behind it, with the same conditions.

        A record that arrives later with an earlier `time` than the end of a page is on none of the following. Raises `InvalidInput`.
        """
        if limit < 1:
            raise InvalidInput("limit.invalid", "A limit is at least 1.")
        selection = Selection(
            type=type,
            source=source,
            subject=subject,
            correlation_id=correlation_id,
            where=where,
            since=_time_or_none(since),
            until=_time_or_none(until),
        )
        return await page(self.kafka, self.codec, self._decoder, topics, selection, limit, after)

    # -- workflows and modules -------------------------------------------------------------------------------------

    async def command(
        self, execution_id: str, command: str, data: Json = None, timeout: float = ANSWER_TIMEOUT_S, *, command_id: str | None = None
    ) -> WorkflowTransition:
        """Sends a command to an execution; the last transition of what was decided about it, whose `status` is that after the command.

        With a `command_id` (UUID) of one's own a repeat of the same command is recognised: it is carried out once, and both get
        the same answer. Raises `Refused` with the code of a `command.refused` (`InvalidDocument` with all faults of a definition
        or an input), and `Unavailable` (`orchestrator.silent`) when nothing answers in time.
        """
        if command == "fork":
            return await self._executions.fork(execution_id, data if isinstance(data, Mapping) else {}, timeout)
        return await self._executions.command(execution_id, command, data, timeout, command_id)

    async def fork_workflow(
        self,
        execution_id: str,
        step: str,
        *,
        fork_id: str | None = None,
        definition: Mapping[str, Any] | None = None,
        input: Json = ...,
        by: str = "",
        timeout: float = ANSWER_TIMEOUT_S,
    ) -> str:
        """Starts a new execution with the results before `step`, with another definition or input if they are given; returns its id.

        Forking again with the same `fork_id` gives the first fork. Raises as `command`.
        """
        data: dict[str, Any] = {"step": step, **({} if input is ... else {"input": input}), **({"by": by} if by else {})}
        data |= {name: value for name, value in (("id", fork_id), ("definition", definition)) if value is not None}
        return (await self._executions.fork(execution_id, data, timeout)).execution_id

    async def start_workflow(
        self,
        definition: Mapping[str, Any] | str,
        input: Json = None,
        *,
        execution_id: str | None = None,
        idempotency_key: str | None = None,
        by: str = "",
        timeout: float = ANSWER_TIMEOUT_S,
    ) -> str:
        """Starts a workflow (a definition, or the id of an applied one); returns the execution's id when it has started.

        Starting again with the same `execution_id` or `idempotency_key` gives the first execution. Raises as `command`.
        """
        begun = await self._executions.start(
            definition, input, execution_id=execution_id, idempotency_key=idempotency_key, by=by, timeout=timeout
        )
        return begun.execution_id

    async def run_workflow(
        self,
        definition: Mapping[str, Any] | str,
        input: Json = None,
        *,
        wait: bool = True,
        execution_id: str | None = None,
        idempotency_key: str | None = None,
        by: str = "",
        timeout: float = ANSWER_TIMEOUT_S,
        on_transition: Callable[[WorkflowTransition], Any] | None = None,
    ) -> dict[str, Any]:
        """Runs a workflow: `{"execution_id", "status", "output", "error"?, "duration_ms"}` of its last record.

        `wait=False` returns when it has started. `timeout` (seconds) is for the start only: a workflow may run for days.
        """
        return await self._executions.run(
            definition,
            input,
            wait=wait,
            execution_id=execution_id,
            idempotency_key=idempotency_key,
            by=by,
            timeout=timeout,
            on_transition=on_transition,
        )

    async def apply_workflow(
        self, definition: Mapping[str, Any] | Sequence[Mapping[str, Any]], *, by: str = "", why: str = ""
    ) -> list[published.AppliedWorkflow]:
        """Publishes one definition or several under their ids; returns when every live core has them, or says which has not.

        Then `start_workflow` and child steps may name them by id. Raises `InvalidInput` (`workflow.invalid`) where there is no id;
        the rest of a definition is not checked here: `mplp workflow apply` and the gateway do, and a start refuses what is faulty.
        """
        return await published.apply(self, [definition] if isinstance(definition, Mapping) else definition, who=by, why=why)

    async def workflows(self) -> list[published.StoredWorkflow]:
        """The published definitions, by id."""
        return await published.list_workflows(self)

    async def workflow(self, workflow_id: str) -> published.StoredWorkflow:
        """The published definition with this id. Raises `NotFound` (`workflow.unknown`)."""
        return await published.show(self, workflow_id)

    async def delete_workflow(self, workflow_id: str, *, by: str = "", why: str = "") -> published.AppliedWorkflow:
        """Takes a published definition back; what runs goes on. Raises `NotFound` (`workflow.unknown`)."""
        return await published.delete(self, workflow_id, who=by, why=why)

    def transitions(
        self, execution_id: str, follow: bool = False, *, until: str | datetime | None = None, sequence: int | None = None
    ) -> AsyncIterator[WorkflowTransition]:
        """The execution's transitions in order; with `follow` also those to come, until it has ended.

        `until` (a time) and `sequence` say where to stop, inclusive: folding these gives the state of that moment.
        """
        end = _time_or_none(until)
        found = self._executions.transitions(execution_id, follow)
        return found if end is None and sequence is None else _until(found, end, sequence)

    async def call_module(
        self,
        module: str,
        operation: str,
        parameters: Mapping[str, Any] | None = None,
        *,
        home: str | None = None,
        timeout: float = ANSWER_TIMEOUT_S,
    ) -> Json:
        """Calls an operation of a module (built in, or a user's own) and returns its result.

        `home` is the key of the story that it belongs to (of an id of something: the part before its first `/`); a call without
        one begins a story of its own. Raises the error of
        the response by its code (`InvalidInput`, `NotFound`, `Denied`, `Refused`), and `Unavailable` (`module.silent`) when
        nothing answers in time.
        """
        return await self._executions.call_module(module, operation, parameters or {}, home=home, timeout=timeout)

    def _subscribed(self, subscription: Subscription[Any]) -> Subscription[Any]:
        self._subscriptions.add(subscription)
        return subscription


def _record(delivered: Delivered) -> Any:
    return delivered.record


def _same(delivered: Delivered) -> Delivered:
    return delivered


async def _until(
    transitions: AsyncIterator[WorkflowTransition], end: datetime | None, sequence: int | None
) -> AsyncIterator[WorkflowTransition]:
    async for transition in transitions:
        if (end is not None and transition.time > end) or (sequence is not None and (transition.sequence or 0) > sequence):
            return
        yield transition


def _time_or_none(value: str | datetime | None) -> datetime | None:
    return parse_time(value) if isinstance(value, str) else value


def _traceparent(value: str) -> bytes:
    if not (value.isascii() and len(value) == 55 and value.count("-") == 3):
        raise InvalidInput("traceparent.invalid", "A traceparent is `00-<trace id>-<span id>-<flags>` (W3C Trace Context).")
    return value.encode()
