"""Partitions of the modules' machine, the orchestrator and modules elsewhere, in memory: effects arrive until all is quiet."""

from __future__ import annotations

import contextlib
from collections import deque
from dataclasses import dataclass, field, replace
from typing import Any

from services.modules import answers
from services.modules.catalogue import OPERATIONS
from services.modules.machine import ModulesMachine
from services.modules.operation import Refusal
from services.modules.states import ModuleState
from services.orchestrator.machine import OrchestratorMachine
from services.orchestrator.state import Execution
from services.orchestrator.store import DefinitionStore
from streams.errors import InvalidDocument
from streams.log.types import REFOLD, Decision, Send
from streams.records import MessageError, ModuleMessage, Record, SystemEvent, derived_id, from_micros
from streams.testing.machine_runner import MachineRunner
from streams.topics import COMMANDS, MESSAGES, REQUESTS, RESPONSES, TRANSITIONS, home_of, partition_of

#: Inboxes, with the machine that reads each.
INBOXES = {REQUESTS: "modules", COMMANDS: "workflow", RESPONSES: "workflow"}
CALLER = "caller"


class Refused(Exception):
    """A call was refused."""

    def __init__(self, error: MessageError, data: Any) -> None:
        super().__init__(f"{error.code}: {error.message}")
        self.code, self.pointer, self.retryable = error.code, data.get("pointer"), error.retryable


@dataclass
class World:
    """Time stands still while messages arrive, and moves by `wait`."""

    partitions: int = 1
    checked: bool = True
    now_us: int = 1_000_000
    modules: list[MachineRunner[ModuleState]] = field(default_factory=list)
    workflows: list[MachineRunner[Execution]] = field(default_factory=list)
    queue: deque[tuple[Send, bool]] = field(default_factory=deque)
    responses: dict[str, ModuleMessage] = field(default_factory=dict)  #: of callers, by request id
    elsewhere: list[ModuleMessage] = field(default_factory=list)  #: what lies in inboxes of modules that run elsewhere
    broadcasts: list[ModuleMessage] = field(default_factory=list)  #: what lies at addresses of subscribers
    refolds: list[Send] = field(default_factory=list)  #: wishes that owners fold their partitions anew
    away: set[int] = field(default_factory=set)  #: partitions that nobody owns
    calls: int = 0

    def __post_init__(self) -> None:
        self.store = DefinitionStore(OPERATIONS)
        for partition in range(self.partitions):
            for machine, runners in ((ModulesMachine(), self.modules), (OrchestratorMachine(self.store, OPERATIONS), self.workflows)):
                runner: MachineRunner[Any] = MachineRunner(machine=machine, checked=self.checked, now_us=self.now_us)
                runner.view.partition, runner.view.partitions = partition, self.partitions
                runners.append(runner)  # type: ignore[attr-defined]

    # --- callers ----------------------------------------------------------------------------------------------------

    def ask(self, module: str, operation: str, parameters: Any = None, *, home: str = "home", timeout_s: float | None = None) -> str:
        """Sends a request from outside, and lets everything follow; its id."""
        request_id = self.post(module, operation, parameters, home=home, timeout_s=timeout_s)
        self.settle()
        return request_id

    def post(self, module: str, operation: str, parameters: Any = None, *, home: str = "home", timeout_s: float | None = None) -> str:
        """Sends a request from outside, which is still on its way; its id."""
        self.calls += 1
        request = ModuleMessage(
            id=derived_id("call", self.calls),
            type=f"{module}.requested",
            subject=home,
            time=from_micros(self.now_us),
            correlation_id=home,
            data={} if parameters is None else parameters,
            kind="request",
            source_module="bus",
            target_module=module,
            operation=operation,
            reply_to=CALLER,
            deadline=None if timeout_s is None else from_micros(self.now_us + round(timeout_s * 1e6)),
        )
        self.queue.append((Send(topic=REQUESTS, key=home, record=request), True))
        return request.id

    def answer_of(self, request_id: str) -> Any:
        """The result that a request brought. Raises `Refused`, and `KeyError` if it was not answered."""
        response = self.responses[request_id]
        if response.error is not None:
            raise Refused(response.error, response.data)
        return response.data

    def call(self, module: str, operation: str, parameters: Any = None, /, *, home: str = "home", **given: Any) -> Any:
        """Asks, and gives the result."""
        return self.answer_of(self.ask(module, operation, given if parameters is None else parameters, home=home))

    def reply(self, request: ModuleMessage, result: Any = None, *, error: str | None = None, retryable: bool = False) -> None:
        """Answers a request that a module elsewhere got, as its worker does."""
        answer: Any = result if error is None else Refusal(code=error, message="No.", retryable=retryable)
        response = replace(answers.response_event(request, answer, None, self.now_us), id=answers.response_id(request.id))
        self.queue.append((Send(topic=RESPONSES, key=request.reply_to or "", record=response), True))
        self.settle()

    def receive(self, message: ModuleMessage, subscriber: str) -> None:
        """A subscriber says that it has a broadcast."""
        notice = ModuleMessage(
            type="hub.notified",
            time=from_micros(self.now_us),
            kind="notification",
            source_module=subscriber,
            target_module="hub",
            operation="received",
            data={"broadcast_id": message.subject, "subscriber": subscriber},
        )
        self.queue.append((Send(topic=REQUESTS, key="hub", record=notice), True))
        self.settle()

    # --- time -------------------------------------------------------------------------------------------------------

    def wait(self, seconds: float) -> None:
        """Lets time pass, with every timer at its moment."""
        end = self.now_us + round(seconds * 1e6)
        while True:
            due = [(found[0], found[1], runner) for runner in (*self.modules, *self.workflows) if (found := runner.next_due()) is not None]
            timer = min(due, key=lambda each: (each[0], each[1]), default=None)
            if timer is None or timer[0] > end:
                break
            self.now_us = max(self.now_us, timer[0])
            runner = timer[2]
            self._perform(runner.fire(timer[1], time_us=self.now_us), runner)
            self.settle()
        self.now_us = end

    def settle(self) -> None:
        """Delivers everything that is on its way."""
        while self.queue:
            send, by_topic = self.queue.popleft()
            self._deliver(send, by_topic)

    def die(self, after: int) -> bool:
        """All owners die after so many deliveries, and new ones take over; whether there was anything to deliver.

        What they had decided and not yet sent is lost; requests from outside lie in their inboxes.
        """
        for _ in range(after):
            if not self.queue:
                return False
            self._deliver(*self.queue.popleft())
        self.queue = deque(each for each in self.queue if isinstance(each[0].record, ModuleMessage) and each[0].record.reply_to == CALLER)
        for partition in range(self.partitions):
            self.take_over(partition)
        return True

    def _deliver(self, send: Send, by_topic: bool) -> None:
        record = send.record
        if send.topic == REFOLD:
            self.refolds.append(send)
        if send.topic not in INBOXES:
            if send.topic.startswith(f"{REQUESTS}.") and isinstance(record, ModuleMessage):
                self.elsewhere.append(record)
            return
        if isinstance(record, ModuleMessage) and send.topic == RESPONSES and record.kind == "broadcast":
            self.broadcasts.append(record)
            return
        if isinstance(record, ModuleMessage) and send.topic == RESPONSES and send.key == CALLER:
            assert record.causation_id is not None
            self.responses.setdefault(record.causation_id, record)
            return
        partition = partition_of(home_of(send.key), self.partitions)
        if partition in self.away:
            return
        runners: list[Any] = self.modules if INBOXES[send.topic] == "modules" else self.workflows
        runner: MachineRunner[Any] = runners[partition]
        # What is handed over in memory has no place in an inbox.
        topic = (
            send.topic if by_topic or not send.hand_over else {REQUESTS: TRANSITIONS, COMMANDS: MESSAGES, RESPONSES: MESSAGES}[send.topic]
        )
        if send.topic == COMMANDS and isinstance(record.data, dict) and "definition" in record.data:
            self._known(record)
        self._perform(runner.receive(record, topic=topic, time_us=self.now_us), runner)

    def _known(self, record: Record) -> None:
        with contextlib.suppress(InvalidDocument):
            self.store.admit(record.data["definition"])

    def _perform(self, decision: Decision, runner: MachineRunner[Any]) -> None:
        for send in runner.take_effects():
            same = partition_of(home_of(send.key), self.partitions) == runner.view.partition
            self.queue.append((send, not (send.hand_over and same)))
        if runner in self.modules:
            # The orchestrator of the partition reads the modules' log.
            workflow = self.workflows[runner.view.partition]
            for event in decision.events:
                if isinstance(event, ModuleMessage) and workflow.machine.concerns(event):
                    self._perform(workflow.receive(event, topic=MESSAGES, time_us=self.now_us), workflow)

    # --- looking ----------------------------------------------------------------------------------------------------

    def state(self, aggregate_id: str) -> Any:
        """The state of an aggregate."""
        return self.modules[partition_of(home_of(aggregate_id), self.partitions)].view.state(aggregate_id)

    def execution(self, execution_id: str) -> Execution:
        """An execution."""
        found = self.workflows[partition_of(execution_id, self.partitions)].view.state(execution_id)
        assert found is not None
        return found

    def events(self, *types: str) -> list[SystemEvent]:
        """Events of modules, in the order of their partitions."""
        return [event for runner in self.modules for event in runner.events(*types)]

    def take_over(self, partition: int) -> None:
        """A new owner of a partition: nothing but the logs is left, and what they show as unanswered is sent again."""
        for runners in (self.modules, self.workflows):
            old: MachineRunner[Any] = runners[partition]  # type: ignore[assignment]
            fresh: MachineRunner[Any] = MachineRunner(machine=old.machine, checked=self.checked)
            fresh.view.partition, fresh.view.partitions = partition, self.partitions
            fresh.take_over(old.log)
            runners[partition] = fresh  # type: ignore[index]
            for state in list(fresh.view.aggregates.values()):
                for send in fresh.machine.outstanding(state):
                    self.queue.append((send, not send.hand_over))
        self.settle()
