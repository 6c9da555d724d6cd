"""A driver of the modules' machine: calls as an orchestrator's step makes them, without a broker."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import pytest

from services.modules.machine import ModulesMachine
from services.modules.states import ModuleState
from streams.log.types import Decision
from streams.records import MessageError, ModuleMessage, SystemEvent, derived_id, from_micros
from streams.testing.machine_runner import MachineRunner
from streams.topics import REQUESTS, TRANSITIONS

HOME = "exec-1"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What a call brought: the response, and the events between request and response."""

    response: ModuleMessage
    events: list[SystemEvent]

    @property
    def result(self) -> dict[str, Any]:
        assert self.response.status == "success", self.response.error
        return self.response.data

    @property
    def error(self) -> MessageError:
        assert self.response.status == "error"
        assert self.response.error is not None
        assert self.events == [], "a refusal changes nothing"
        return self.response.error

    @property
    def refused(self) -> tuple[str, str | None]:
        """Code and pointer of a refusal."""
        return self.error.code, self.response.data.get("pointer")

    @property
    def types(self) -> list[str]:
        return [event.type for event in self.events]


@dataclass
class Modules:
    """Calls, one second apart."""

    runner: MachineRunner[ModuleState] = field(default_factory=lambda: MachineRunner(ModulesMachine(), checked=True))
    calls: int = 0

    def request(self, module: str, operation: str, parameters: Any, **fields: Any) -> ModuleMessage:
        self.calls += 1
        given: dict[str, Any] = {
            "id": derived_id("call", self.calls),
            "type": f"{module}.requested",
            "source": "mplp/orchestrator",
            "subject": HOME,
            "time": from_micros(0),
            "correlation_id": HOME,
            "data": parameters,
            "kind": "request",
            "source_module": "workflow",
            "target_module": module,
            "operation": operation,
            "execution_id": HOME,
            "step_id": f"step-{self.calls}",
            "attempt": 1,
            "reply_to": HOME,
        }
        return ModuleMessage(**{**given, **fields})

    def receive(self, request: ModuleMessage, *, outside: bool = False) -> Decision:
        """Hands a request over as the local orchestrator does, or as it comes from the topic of requests."""
        topic = f"some-prefix{REQUESTS.removeprefix('mplp')}" if outside else TRANSITIONS
        return self.runner.receive(request, topic=topic, time_us=self.runner.now_us + 1_000_000)

    def call(self, module: str, operation: str, parameters: Any = None, /, **given: Any) -> Answer:
        """Calls with `parameters`, or with keyword arguments as parameters."""
        decision = self.receive(self.request(module, operation, given if parameters is None else parameters))
        request, *events, response = decision.events
        assert isinstance(request, ModuleMessage)
        assert request.kind == "request"
        assert isinstance(response, ModuleMessage)
        assert response.kind == "response"
        assert all(isinstance(event, SystemEvent) for event in events)
        return Answer(response=response, events=events)  # type: ignore[arg-type]

    def context(self, **parameters: Any) -> str:
        """A new context."""
        return str(self.call("context", "create-context", {"name": "room", **parameters}).result["contextId"])

    def plan(self, *tasks: tuple[str, list[str]]) -> str:
        """A new draft with tasks and their dependencies."""
        listed = [{"taskId": task, "dependencies": dependencies} for task, dependencies in tasks]
        return str(self.call("plan", "create-plan", contextId=self.context(), tasks=listed).result["planId"])

    def trace(self) -> str:
        """A running trace."""
        return str(self.call("trace", "start-monitoring", contextId=self.context()).result["traceId"])

    def dialog(self, *participants: Any) -> str:
        """An active dialog."""
        return str(self.call("dialog", "facilitate-communication", participants=list(participants) or ["ada", "bob"]).result["dialogId"])

    @property
    def now(self) -> datetime:
        """Time of the latest decision."""
        return from_micros(self.runner.now_us)


@pytest.fixture
def modules() -> Modules:
    return Modules()
