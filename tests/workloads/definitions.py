"""Random valid definitions of all step types."""

from __future__ import annotations

from collections.abc import Collection
from random import Random
from typing import Any

from tests.workloads.behaviour import MODULE

#: Step types, by how often they are drawn. Containers end at `DEPTH_MAX`.
WEIGHTS = {
    "module-operation": 8, "wait": 2, "transform": 1, "approval": 1, "emit": 1, "signal": 1,
    "parallel": 3, "conditional": 3, "foreach": 3, "loop": 2, "workflow": 1,
}  # fmt: skip
CONTAINERS = frozenset({"parallel", "conditional", "foreach", "loop", "workflow"})
DEPTH_MAX = 2
SIGNALS = ("go", "stop")

DELAYS_MS = (0, 1, 7, 250, 1000, 1000, 1499, 3000, 12_000, 45_000)


class Definitions:
    """Draws definitions. `kinds`: the step types that may occur."""

    def __init__(self, random: Random, kinds: Collection[str]) -> None:
        self.random = random
        self.kinds = [kind for kind in WEIGHTS if kind in kinds]
        self._names = 0

    def chance(self, percent: int) -> bool:
        """True in so many of a hundred cases."""
        return self.random.randrange(100) < percent

    def pick(self, *values: Any) -> Any:
        """One of the values."""
        return values[self.random.randrange(len(values))]

    def workflow(self, name: str = "w", depth: int = 0) -> dict[str, Any]:
        """A whole workflow."""
        document: dict[str, Any] = {"id": name, "name": name, "steps": self.steps(depth)}
        if self.chance(40):
            document["error-handling"] = self.handling(inner=False)
        if self.chance(15):
            document["timeout"] = self.pick(5000, 30_000)
        if self.chance(20):
            document["on-failure"] = "cancel"
        if self.chance(20):
            document["max-concurrency"] = self.pick(1, 2)
        return document

    def steps(self, depth: int, *, turn: bool = False) -> list[dict[str, Any]]:
        """A list with dependencies."""
        found: list[dict[str, Any]] = []
        for _ in range(1 + self.random.randrange(4 if depth == 0 else 3)):
            step = self.step(depth, turn=turn)
            before = [other["id"] for other in found if self.chance(35)]
            if before:
                step["dependencies"] = before
            if step["type"] == "module-operation" and before and self.chance(50):
                step["parameters"]["from"] = f"${{{self.pick(*before)}.result}}"
            found.append(step)
        self.random.shuffle(found)  # order comes from dependencies only
        return found

    def step(self, depth: int, *, turn: bool = False, kind: str | None = None) -> dict[str, Any]:
        """One step, with what is inside it."""
        if kind is None:
            kinds = [name for name in self.kinds if depth < DEPTH_MAX or name not in CONTAINERS]
            kind = self.pick(*(name for name in kinds for _ in range(WEIGHTS[name])))
        self._names += 1
        step: dict[str, Any] = {"id": f"s{self._names}", "type": kind, **self.body(kind, depth, turn=turn)}
        if kind not in ("emit", "transform") and self.chance(20):
            step["timeout"] = self.pick(1000, 2500, 8000)
        if self.chance(45):
            step["error-handling"] = self.handling(inner=True)
        if kind != "emit" and self.chance(20):
            step["compensation"] = {"type": "module-operation", **self.operation()}
        return step

    def body(self, kind: str, depth: int, *, turn: bool) -> dict[str, Any]:
        """The fields of a step type."""
        match kind:
            case "module-operation":
                more = {"attempt-timeout": self.pick(900, 2000)} if self.chance(30) else {}
                return {**self.operation(turn=turn), **more}
            case "wait":
                return {"for": self.pick(*DELAYS_MS)} if self.chance(80) else {"until": "2026-01-01T00:00:30Z"}
            case "transform":
                return {"value": self.pick("1 + 1", "1 + 1", "input.n", "{'a': [input.n]}", "input.gone")}
            case "approval":
                return {"title": "Is ${input.n} right?", **({"deadline": self.pick(1000, 20_000)} if self.chance(60) else {})}
            case "emit":
                return {
                    "event": {"type": "x.happened", "subject": "${execution.id}", "data": {"n": self.pick("${input.n}", "${input.gone}")}}
                }
            case "signal":
                return {"name": self.pick(*SIGNALS)}
            case _:
                return self.container(kind, depth + 1, turn=turn)

    def container(self, kind: str, depth: int, *, turn: bool) -> dict[str, Any]:
        """The fields of a step type with steps inside."""
        limit = {"max-concurrency": self.pick(1, 2)} if self.chance(30) else {}
        match kind:
            case "parallel":
                return {"steps": self.steps(depth, turn=turn), **limit, **self.pick({}, {}, {"fail-fast": True}, {"require": "all"})}
            case "conditional":
                condition = {"type": "expression", "expression": self.pick("true", "input.n > 0", "false", "input.n < 0", "input.gone")}
                if self.chance(25):
                    condition = {"type": "custom", "handler": f"{MODULE}.{self.pick('yes', 'no', 'no', 'unsure')}"}
                other = {"else": self.step(depth, turn=turn)} if self.chance(60) else {}
                return {"condition": condition, "then": self.step(depth, turn=turn), **other}
            case "foreach":
                items = [{"plan": self.plan(), "n": number} for number in range(self.random.randrange(4))]
                return {"items": items, "steps": self.steps(depth, turn=True), **limit}
            case "loop":
                turns = self.random.randrange(4)
                most = turns if turns and self.chance(80) else max(1, turns - 1)
                return {"while": f"iteration < {turns}", "steps": self.steps(depth), "max-iterations": most}
            case _:
                self._names += 1
                inner = Definitions(self.random, self.kinds)
                return {"workflow": inner.workflow(f"child-{self._names}", DEPTH_MAX), "input": {"n": 1}}

    def operation(self, *, turn: bool = False) -> dict[str, Any]:
        """A request that says itself how it is answered."""
        parameters = {"plan": "${item.plan}"} if turn and self.chance(50) else {"plan": self.plan()}
        return {"module": MODULE, "operation": self.pick("first", "second"), "parameters": parameters}

    def plan(self) -> list[Any]:
        """How the attempts of an operation end; see `behaviour`."""
        return [self.ending() for _ in range(1 + self.random.randrange(3))]

    def ending(self) -> Any:
        """How one attempt ends."""
        if self.chance(8):
            return "never"
        after = self.pick(*DELAYS_MS)
        if self.chance(65):
            return {"after": after, "result": {"n": self.random.randrange(-(2**53), 2**53)}}
        code = self.pick("broken", "unavailable", "not-found")
        return {"after": after, "error": {"code": code, "message": f"{code} it is", "retryable": self.chance(50)}}

    def handling(self, *, inner: bool) -> dict[str, Any]:
        """Retries and fallbacks; `inner`: of a step, whose fallback may be any step."""
        handling: dict[str, Any] = {}
        if self.chance(60):
            handling["retry-policy"] = self.policy()
        if self.chance(60):
            handling["fallback-actions"] = [self.fallback(inner=inner) for _ in range(self.pick(1, 1, 2))]
        return handling

    def policy(self) -> dict[str, Any]:
        """A retry policy."""
        return {
            "max-retries": self.random.randrange(4),
            "backoff-strategy": self.pick("fixed", "linear", "exponential"),
            "initial-interval": self.pick(*DELAYS_MS),
            "max-interval": self.pick(2000, 60_000),
            "multiplier": self.pick(2, 1.5, 1.2),
            "jitter": self.pick(0, 0, 0.3),
            **({"retryable": ["broken"]} if self.chance(60) else {}),
            **({"non-retryable": ["unavailable"]} if self.chance(15) else {}),
        }

    def fallback(self, *, inner: bool) -> dict[str, Any]:
        """A fallback action."""
        action = self.pick("skip", "fail", "use-value", "escalate-to-human", "compensate", "run-step", "run-step")
        found: dict[str, Any] = {"condition": self.pick("error", "timeout", "broken", "error.retryable"), "action": action}
        match action:
            case "use-value":
                found["value"] = self.pick(1, None, {"n": "${input.n}"}, "${input.missing}")
            case "run-step":
                found["step"] = {"type": "module-operation", **self.operation()}
                if inner and self.chance(30):
                    self._names += 1
                    found["step"] = {"id": f"s{self._names}", "type": "wait", "for": self.pick(*DELAYS_MS)}
            case "escalate-to-human" if self.chance(50):
                found["deadline"] = 5000
        return found
