"""Workflows and modules through their topics: ask, and wait for what the log says.

Whoever asks begins to watch before it sends, so no answer can be missed; nothing polls.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any

from streams import topics
from streams.bus.follower import CaughtUp, Feed, Follower
from streams.bus.outgoing import Headers
from streams.bus.publisher import Publisher
from streams.bus.selection import Selection
from streams.bus.sources import AssignedSource, Since
from streams.bus.stories import (
    CLOCK_SKEW_MS,
    ENDED_STATUSES,
    REFUSED,
    SOURCE,
    STARTED,
    TERMINAL,
    command_of,
    outcome,
    refusal_of,
    result_of,
    start_command,
    time_of_id,
)
from streams.bus.subscription import Decoder, Subscription
from streams.codec.avro import Codec
from streams.concurrency import cancelled
from streams.errors import BackboneError, InvalidInput, NotFound, Unavailable
from streams.kafka import Kafka
from streams.operations import CONTRACT
from streams.records import Json, ModuleMessage, WorkflowCommand, WorkflowTransition, new_id, now
from streams.topics import home_of, module_requests, partition_of

#: What a caller waits for who does not want to see each transition.
_ENDS = (STARTED, REFUSED, *TERMINAL)


class Executions:
    """Commands, runs, transitions and module calls of one bus."""

    def __init__(self, kafka: Kafka, codec: Codec, publisher: Publisher, decoder: Decoder) -> None:
        self._kafka, self._codec, self._publisher, self._decoder = kafka, codec, publisher, decoder
        self._transitions = Follower(kafka, codec, decoder, topics.TRANSITIONS)
        #: Where modules answer to this bus: the key, hence the partition, of their responses.
        self._address = f"bus-{new_id()}"
        self._responses: Follower | None = None

    async def close(self) -> None:
        """Stops watching."""
        await self._transitions.close()
        if self._responses is not None:
            await self._responses.close()

    async def command(
        self, execution_id: str, command: str, data: Json, timeout: float, command_id: str | None = None
    ) -> WorkflowTransition:
        """See `Bus.command`."""
        wish = command_of(execution_id, command, data if data is not None else {}, command_id)
        async with self._transitions.watch(home_of(execution_id)) as feed:
            if command_id is not None and (decided := await self._decided(wish)) is not None:
                return decided
            await self._send(wish)
            first = await self._first(feed, lambda transition: transition.causation_id == wish.id, wish, timeout)
            return await _last_of(first, wish, feed)

    async def _decided(self, wish: WorkflowCommand) -> WorkflowTransition | None:
        """The last transition of a command that was carried out before. Raises the error of its refusal."""
        last = None
        async for transition in self.transitions(wish.execution_id, follow=False):
            if transition.causation_id == wish.id:
                if transition.type == REFUSED:
                    raise refusal_of(transition)
                last = transition
        return last

    async def fork(self, execution_id: str, data: Mapping[str, Json], timeout: float) -> WorkflowTransition:
        """See `Bus.fork`."""
        fork_id = data.get("id")
        if not isinstance(fork_id, str):
            fork_id = new_id()
        wish = command_of(execution_id, "fork", {**data, "id": fork_id})
        async with self._transitions.watch(home_of(fork_id)) as begun:
            async for transition in self.transitions(fork_id, follow=False):
                return transition  # it was forked before
            async with self._transitions.watch(home_of(execution_id)) as feed:
                await self._send(wish)
                await self._first(feed, lambda transition: transition.causation_id == wish.id, wish, timeout)
            first = await self._first(begun, lambda found: found.execution_id == fork_id and found.type == STARTED, wish, timeout)
            return await _last_of(first, wish, begun, causation_id=first.causation_id)

    async def start(
        self,
        definition: Mapping[str, Any] | str,
        input: Json,
        *,
        execution_id: str | None,
        idempotency_key: str | None,
        by: str,
        timeout: float,
    ) -> WorkflowTransition:
        """Starts an execution; its first transition, or that of the execution that is there already."""
        wish = self._start_command(definition, input, execution_id, idempotency_key, by)
        async with self._transitions.watch(home_of(wish.execution_id)) as feed:
            begun = await self._started(wish, feed, timeout=timeout)
        if isinstance(begun, WorkflowTransition):
            return begun
        async for transition in self._so_far(wish.execution_id, begun):
            return transition
        raise _gone(wish.execution_id)

    async def run(
        self,
        definition: Mapping[str, Any] | str,
        input: Json,
        *,
        wait: bool,
        execution_id: str | None,
        idempotency_key: str | None,
        by: str,
        timeout: float,
        on_transition: Callable[[WorkflowTransition], Any] | None,
    ) -> dict[str, Any]:
        """See `Bus.run_workflow`."""
        wish = self._start_command(definition, input, execution_id, idempotency_key, by)
        wanted = _ENDS if on_transition is None else None
        async with self._transitions.watch(home_of(wish.execution_id), wanted) as feed:
            last = await self._started(wish, feed, timeout=timeout)
            if isinstance(last, WorkflowTransition):
                if wait:
                    last = await _to_the_end(wish.execution_id, last, feed, on_transition)
                return outcome(last)
        # It was there before: its story is in the log.
        told: WorkflowTransition | None = None
        async for transition in self.transitions(wish.execution_id, follow=wait, since=last):
            told = transition
            if wait and on_transition is not None:
                on_transition(transition)
            if not wait:
                break
        if told is None:
            raise _gone(wish.execution_id)
        return outcome(told)

    async def transitions(self, execution_id: str, follow: bool, since: Since | None = None) -> AsyncIterator[WorkflowTransition]:
        """See `Bus.transitions`. `since`: when it began, if that is known."""
        if not follow:
            async for transition in self._so_far(execution_id, since):
                yield transition
            return
        async with self._transitions.watch(home_of(execution_id)) as feed:
            seen, ended = 0, False
            async for transition in self._so_far(execution_id, since):
                # What ended may have been retried since: only how it is now counts.
                seen = max(seen, transition.sequence or 0)
                ended = transition.type in TERMINAL or (ended and transition.status in ENDED_STATUSES)
                yield transition
            while not ended:
                transition = _record(await feed.get())
                if isinstance(transition, WorkflowTransition) and transition.execution_id == execution_id:
                    if transition.sequence and transition.sequence <= seen:
                        continue
                    yield transition
                    ended = transition.type in TERMINAL

    async def _so_far(self, execution_id: str, since: Since | None = None) -> AsyncIterator[WorkflowTransition]:
        """The execution's transitions up to the log's present end."""
        since = since or await self._beginning_of(execution_id)
        async with await self._story(execution_id, since, until_end=True) as story:
            async for transition in story:
                if transition.execution_id == execution_id:
                    yield transition

    async def call_module(self, module: str, operation: str, parameters: Mapping[str, Any], *, home: str | None, timeout: float) -> Json:
        """See `Bus.call_module`."""
        if home is not None and not home_of(home):
            raise InvalidInput("home.invalid", "A home is the part of an id before the first `/`, and not empty.", pointer="/home")
        request = ModuleMessage(
            type=f"{module}.requested",
            source=SOURCE,
            subject=home or new_id(),
            data=dict(parameters),
            kind="request",
            source_module="bus",
            target_module=module,
            operation=operation,
        )
        return result_of(await self.answer_of(module, request, timeout))

    async def answer_of(
        self, module: str, request: ModuleMessage, timeout: float, headers: Headers = (), *, topic: str | None = None
    ) -> ModuleMessage:
        """The module's response to a request, whose address and deadline are set here. Raises `Unavailable`, `NotFound`.

        `topic`: where it takes requests, if not in its inbox.
        """
        request = replace(request, reply_to=self._address, deadline=now() + timedelta(seconds=timeout))
        topic = topic or (topics.REQUESTS if module in CONTRACT else module_requests(module))
        async with (await self._answers()).watch(self._address) as feed:
            try:
                await self._publisher.publish_one(topic, home_of(request.subject), request, headers)
            except NotFound as error:
                if module in CONTRACT:
                    raise
                raise NotFound("module.unknown", f"There is no module {module}: it never started here.") from error
            try:
                async with asyncio.timeout(timeout):
                    while True:
                        response = _record(await feed.get())
                        if isinstance(response, ModuleMessage) and response.kind == "response" and response.causation_id == request.id:
                            return response
            except TimeoutError as error:
                raise Unavailable(
                    "module.silent", f"The module {module} did not answer within {timeout:g} s.", advice="Is it running? See `mplp status`."
                ) from error

    async def _answers(self) -> Follower:
        if self._responses is None:
            partitions = await self._publisher.partitions(topics.RESPONSES)
            if self._responses is None:
                self._responses = Follower(
                    self._kafka, self._codec, self._decoder, topics.RESPONSES, partition=partition_of(self._address, partitions)
                )
        return self._responses

    async def _send(self, wish: WorkflowCommand) -> None:
        await self._publisher.publish_one(topics.COMMANDS, home_of(wish.execution_id), wish, ())

    def _start_command(
        self, definition: Mapping[str, Any] | str, input: Json, execution_id: str | None, idempotency_key: str | None, by: str
    ) -> WorkflowCommand:
        return start_command(definition, input, execution_id=execution_id, idempotency_key=idempotency_key, by=by, reply_to=self._address)

    async def _started(self, wish: WorkflowCommand, feed: Feed, *, timeout: float) -> WorkflowTransition | datetime:
        """The first transition; or, of an execution that was there before, when it began (less the clocks' skew)."""

        def begins(transition: WorkflowTransition) -> bool:
            return transition.causation_id == wish.id or (transition.type == STARTED and transition.execution_id == wish.execution_id)

        if "reply_to" not in wish.data:
            await self._send(wish)
            return await self._first(feed, begins, wish, timeout)
        # An id that was given may be there already; a second start leaves no trace in the log, but the core answers it.
        async with (await self._answers()).watch(self._address) as answers:
            await self._send(wish)
            began = asyncio.create_task(self._first(feed, begins, wish, timeout))
            known = asyncio.create_task(_here_since(wish, answers))
            try:
                await asyncio.wait((began, known), return_when=asyncio.FIRST_COMPLETED)
                return began.result() if began.done() else known.result()
            finally:
                await cancelled(began, known)

    async def _first(
        self, feed: Feed, wanted: Callable[[WorkflowTransition], bool], wish: WorkflowCommand, timeout: float
    ) -> WorkflowTransition:
        try:
            async with asyncio.timeout(timeout):
                while True:
                    transition = _record(await feed.get())
                    if isinstance(transition, WorkflowTransition) and wanted(transition):
                        break
        except TimeoutError as error:
            raise Unavailable(
                "orchestrator.silent",
                f"Nothing answered the command {wish.command} within {timeout:g} s.",
                advice="Is the core running? See `mplp status`.",
            ) from error
        if transition.type == REFUSED and transition.causation_id == wish.id:
            raise refusal_of(transition)
        return transition

    async def _beginning_of(self, execution_id: str) -> Since:
        """Where reading must begin: for a generated id shortly before the time that is in it, if the story really begins there."""
        created = time_of_id(execution_id)
        if created is None:
            return "beginning"
        async with await self._story(execution_id, created, until_end=True) as story:
            async for transition in story:
                if transition.execution_id == execution_id and transition.sequence is not None and transition.sequence <= 1:
                    return created
                break
        return "beginning"

    async def _story(self, execution_id: str, since: Since, *, until_end: bool) -> Subscription[Any]:
        """Transitions under an execution's home, from the one partition where they are."""
        home = home_of(execution_id)
        partition = partition_of(home, await self._publisher.partitions(topics.TRANSITIONS))
        source = AssignedSource(self._kafka, self._codec, topics.TRANSITIONS, since, partitions=[partition], until_end=until_end)
        return Subscription(source, self._decoder, topics.TRANSITIONS, Selection(), lambda delivered: delivered.record, key=home)


async def _last_of(first: WorkflowTransition, wish: WorkflowCommand, feed: Feed, *, causation_id: str | None = None) -> WorkflowTransition:
    """The last transition of the decision that `first` begins: a decision is one batch, so it is in the feed whole."""
    last, cause = first, causation_id or wish.id
    while not isinstance(found := _record(await feed.get()), CaughtUp):
        if isinstance(found, WorkflowTransition) and found.causation_id == cause and found.execution_id == first.execution_id:
            last = found
    return last


async def _here_since(wish: WorkflowCommand, answers: Feed) -> datetime:
    """When the execution began, which the core says was there before."""
    while True:
        response = _record(await answers.get())
        if isinstance(response, ModuleMessage) and response.causation_id == wish.id and response.kind == "response":
            return datetime.fromisoformat(result_of(response)["startedAt"]) - timedelta(milliseconds=CLOCK_SKEW_MS)


def _gone(execution_id: str) -> NotFound:
    return NotFound("execution.unknown", f"The execution {execution_id} is there, but its story is no longer in the log.")


async def _to_the_end(
    execution_id: str, first: WorkflowTransition, feed: Feed, on_transition: Callable[[WorkflowTransition], Any] | None
) -> WorkflowTransition:
    transition = first
    while True:
        if on_transition is not None:
            on_transition(transition)
        if transition.type in TERMINAL:
            return transition
        while True:
            record = _record(await feed.get())
            if isinstance(record, WorkflowTransition) and record.execution_id == execution_id:
                transition = record
                break


def _record(item: Any) -> Any:
    if isinstance(item, BackboneError):
        raise item
    return item
