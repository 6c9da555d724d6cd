"""Random workflows whose outcome does not depend on time, and the outcome that each must have.

A shape is made from a seed alone. Its steps call `chaos.work`, whose answers follow from parameters and attempt; what fails for
good stands at the end, so that nothing runs beside it. So kills and pauses may change when things happen, never what happens.
The oracle is the engine itself, run in memory without faults.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any

from services.orchestrator.scenario import Answer, read_scenario
from services.orchestrator.simulation import Simulation
from streams.records import Json, ModuleMessage
from tests.chaos.module import NEVER_S, Work, message

RETRY = {"max-retries": 4, "backoff-strategy": "fixed", "initial-interval": 50}


@dataclass(frozen=True, slots=True)
class Shape:
    """A workflow with its input, and what must come out: `workflow test`'s outcome."""

    definition: dict[str, Any]
    input: dict[str, Any]
    expected: dict[str, Any]


def shape(seed: int) -> Shape:
    """The workflow of a seed."""
    chance = random.Random(seed)
    definition, given = _Maker(chance).workflow(f"chaos-{seed % 50}"), {"number": chance.randrange(10)}
    return Shape(definition, given, Oracle(definition, read_scenario({"input": given})).run())


class Oracle(Simulation):
    """The engine in memory, where `chaos.work` answers as the real module does."""

    def answer_to(self, request: ModuleMessage) -> Answer | None:
        """What `tests.chaos.module` answers."""
        work = Work.model_validate(request.data)
        code = work.fail[request.attempt - 1] if request.attempt <= len(work.fail) else work.always
        after = work.takes_ms
        if code == "never":
            return Answer.model_validate({"result": {"value": work.value}, "after": int(NEVER_S * 1000) + after})
        if code:
            return Answer.model_validate(
                {"error": {"code": code, "message": message(code, request.attempt), "retryable": True}, "after": after}
            )
        return Answer.model_validate({"result": {"value": work.value}, "after": after})


class _Maker:
    def __init__(self, chance: random.Random) -> None:
        self.chance = chance
        self.number = 0

    def workflow(self, workflow_id: str) -> dict[str, Any]:
        """A whole definition; one in five fails at its end."""
        steps: list[dict[str, Any]] = []
        for _ in range(self.chance.randint(2, 6)):
            step = self.step([other["id"] for other in steps])
            step["dependencies"] = [other["id"] for other in steps if self.chance.random() < 0.4]
            steps.append(step)
        if self.chance.random() < 0.2:
            last = self.work()
            last["parameters"]["always"] = "broken"
            last["dependencies"] = [other["id"] for other in steps]
            steps.append(last)
        found: dict[str, Any] = {"id": workflow_id, "name": workflow_id, "steps": steps}
        if self.chance.random() < 0.3:
            found["max-concurrency"] = self.chance.randint(1, 3)
        return found

    def name(self) -> str:
        """An id that no other step has."""
        self.number += 1
        return f"s{self.number}"

    def step(self, before: list[str]) -> dict[str, Any]:
        """Any step."""
        makers = (self.work, self.retried, self.given_up, self.late, self.parallel, self.conditional, self.wait, self.emit, self.transform)
        makers = (*makers, self.foreach, self.loop, self.child)
        made = self.chance.choice(makers)()
        if made["type"] == "module-operation" and self.chance.random() < 0.3:
            made["compensation"] = self.work()
        return made

    def work(self) -> dict[str, Any]:
        """A call that succeeds."""
        parameters: dict[str, Json] = {"value": self.chance.choice([1, "two", None, {"three": [3]}, "${input.number}"])}
        if self.chance.random() < 0.5:
            parameters["takes_ms"] = self.chance.randrange(100)
        return {"id": self.name(), "type": "module-operation", "module": "chaos", "operation": "work", "parameters": parameters}

    def retried(self) -> dict[str, Any]:
        """A call that succeeds at last."""
        made = self.work()
        made["parameters"]["fail"] = ["unavailable"] * self.chance.randint(1, 3)
        return made | {"error-handling": {"retry-policy": RETRY}}

    def given_up(self) -> dict[str, Any]:
        """A call that never succeeds; a fallback saves it."""
        made = self.work()
        made["parameters"]["always"] = "broken"
        fallback = self.chance.choice(
            [
                {"condition": "error", "action": "use-value", "value": 7},
                {"condition": "broken", "action": "skip"},
                {"condition": "error.code == 'broken'", "action": "run-step", "step": self.work()},
            ]
        )
        return made | {"error-handling": {"retry-policy": RETRY | {"max-retries": 1}, "fallback-actions": [fallback]}}

    def late(self) -> dict[str, Any]:
        """A call whose first attempt is never answered in time."""
        made = self.work()
        made["parameters"]["fail"] = ["never"]
        # Long enough for a process to be stopped and taken over: only the attempt that shall be late is late.
        return made | {
            "attempt-timeout": "2s",
            "error-handling": {"fallback-actions": [{"condition": "timeout", "action": "use-value", "value": 0}]},
        }

    def parallel(self) -> dict[str, Any]:
        """Calls side by side; one may be rejected."""
        steps = [self.work() for _ in range(self.chance.randint(2, 4))]
        if self.chance.random() < 0.4:
            steps[0]["parameters"]["always"] = "broken"
        return {"id": self.name(), "type": "parallel", "steps": [step | {"timeout": "10m"} for step in steps]}

    def conditional(self) -> dict[str, Any]:
        """One of two calls."""
        condition = {"type": "expression", "expression": f"input.number > {self.chance.randrange(10)}"}
        return {"id": self.name(), "type": "conditional", "condition": condition, "then": self.work(), "else": self.work()}

    def wait(self) -> dict[str, Any]:
        """A short wait."""
        return {"id": self.name(), "type": "wait", "for": self.chance.randrange(1, 400)}

    def emit(self) -> dict[str, Any]:
        """An event."""
        return {
            "id": self.name(),
            "type": "emit",
            "event": {"type": "chaos.happened", "subject": "${execution.id}", "data": {"n": "${input.number}"}},
        }

    def transform(self) -> dict[str, Any]:
        """A value."""
        return {"id": self.name(), "type": "transform", "value": "input.number * 2"}

    def foreach(self) -> dict[str, Any]:
        """Turns over a list."""
        inner = self.work()
        inner["parameters"]["value"] = "${item}"
        made = {"id": self.name(), "type": "foreach", "items": list(range(self.chance.randint(0, 5))), "steps": [inner]}
        return made | ({"max-concurrency": 2} if self.chance.random() < 0.5 else {})

    def loop(self) -> dict[str, Any]:
        """Turns while something holds."""
        return {
            "id": self.name(), "type": "loop", "while": f"iteration < {self.chance.randint(0, 3)}", "max-iterations": 5,
            "steps": [self.work()],
        }  # fmt: skip

    def child(self) -> dict[str, Any]:
        """A workflow of its own."""
        name = self.name()
        child = {"id": f"child-{name}", "name": name, "steps": [self.work(), self.work()]}
        return {"id": name, "type": "workflow", "input": {"number": "${input.number}"}, "workflow": child}
