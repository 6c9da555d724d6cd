"""The module that random workflows ask: how an attempt ends stands in its parameters, so the outcome can be told beforehand.

Operations `simulate.<any>`: parameters `{"plan": [P…]}`; attempt n gets the n-th entry, further ones the last. An entry is
`{"after": ms, "result": JSON}`, `{"after": ms, "error": {code, message, retryable}}`, or `"never"`. The operations `CONDITIONS` are the
handlers of conditions.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from services.orchestrator.scenario import Answer
from services.orchestrator.simulation import Simulation
from streams.records import ModuleMessage

MODULE = "simulate"
#: What the handlers of conditions answer at once, by operation.
CONDITIONS = {"yes": True, "no": {"value": False}, "unsure": "perhaps"}


def planned(operation: str, parameters: Any, attempt: int) -> Mapping[str, Any] | None:
    """How an attempt (from 1) ends; None: never."""
    if operation in CONDITIONS:
        return {"after": 0, "result": CONDITIONS[operation]}
    plan = parameters.get("plan") if isinstance(parameters, Mapping) else None
    if not plan:
        return {"after": 0, "result": {}}
    entry = plan[min(attempt, len(plan)) - 1]
    return None if entry == "never" else entry


class PlannedSimulation(Simulation):
    """A simulation whose modules do what the parameters of their requests say."""

    def answer_to(self, request: ModuleMessage) -> Answer | None:
        """See `planned`; other modules answer as the scenario says."""
        if request.target_module != MODULE:
            return super().answer_to(request)
        entry = planned(request.operation or "", request.data, request.attempt)
        return None if entry is None else Answer.model_validate(entry)
